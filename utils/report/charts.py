"""Charts as SVG text: bars, curves, histogram, heat map, scatter. Fractions are shown in per cent."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

import numpy as np

INK, MUTED, GRID, FRAME = "#1f2933", "#6b7785", "#e4e8ed", "#e2711d"
SERIES = ("#2457c5", "#e27d34", "#16a085", "#8b5fcf", "#9db1cc", "#c0392b", "#4a9d77", "#b8860b", "#66758a", "#d16ba5")
STEP_COLORS = {"all classes": INK, "classes of step 0": "#2f6fb0", "later classes": "#d9822b"}  # along a task
MOST_DOTS, BINS = 25, 32
Points = Sequence[tuple[float, float]]
Row = tuple[str, Mapping[str, float | None]]  # name, value per series


def series_colors(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in order; colours repeat after ten names."""
    return {name: SERIES[place % len(SERIES)] for place, name in enumerate(names)}


def bars(rows: Sequence[Row], colors: Mapping[str, str], strong: int = 0, width: int = 540) -> str:
    """Horizontal bars from 0 to 100 %: a row per name, a bar per series. A line separates the last `strong` rows."""
    left, right, thick = 18 + 6.6 * max(len(name) for name, _ in rows), 44, 11
    pitch = thick * len(colors) + 9
    plot = width - left - right
    lines, y = [], 4.0
    for number, (name, values) in enumerate(rows):
        if strong and number == len(rows) - strong:
            lines.append(_line(0, y + 2, width, y + 2, GRID))
            y += 8
        weight = "600" if number >= len(rows) - strong else "400"
        lines.append(_text(left - 8, y + pitch / 2 - 1, name, "end", weight=weight))
        for place, (series, color) in enumerate(colors.items()):
            value, top = values.get(series), y + 2 + place * thick
            length = plot * (value or 0)
            lines.append(_box(left, top, length, thick - 1, f'fill="{color}" rx="2"'))
            shown = "-" if value is None else f"{100 * value:.1f}"
            lines.append(_text(left + length + 5, top + thick / 2 - 0.5, shown, size=10, color=MUTED, weight=weight))
        y += pitch
    axis = [_line(left + plot * t, 2, left + plot * t, y, GRID) for t in (0, 0.25, 0.5, 0.75, 1)]
    axis += [_text(left + plot * t, y + 11, f"{100 * t:.0f}", "middle", 10, MUTED) for t in (0, 0.25, 0.5, 0.75, 1)]
    return _svg(width, y + 20, [*axis, *lines])


def curves(
    series: Mapping[str, Points],
    colors: Mapping[str, str],
    x_name: str,
    *,
    percent: bool = False,
    width: int = 350,
    height: int = 220,
) -> str:
    """Lines of (x, y) points, y axis from 0; dots if there are at most MOST_DOTS points; "" if there are none."""
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    x_ticks = ticks(0, max(x for points in series.values() for x, _ in points), 5)
    y_ticks = ticks(0, max(y for points in series.values() for _, y in points), 4)
    left, right, top, bottom = 40, 12, 10, 36

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = x / x_ticks[-1], y / y_ticks[-1]
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    lines = []
    for t in y_ticks:
        y = at(0, t)[1]
        shown = f"{100 * t:g}" if percent else f"{t:g}"
        lines += [_line(left, y, width - right, y, GRID), _text(left - 6, y, shown, "end", 10, MUTED)]
    whole = [t for t in x_ticks if t == int(t)]  # there is no half step or epoch
    lines += [_text(at(t, 0)[0], height - bottom + 13, f"{t:g}", "middle", 10, MUTED) for t in whole]
    lines.append(_text((left + width - right) / 2, height - 7, x_name, "middle", 10, MUTED))
    for name, points in series.items():
        path = [at(x, y) for x, y in points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{colors[name]}" stroke-width="2"/>')
        if len(path) <= MOST_DOTS:
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colors[name]}"/>' for x, y in path]
    return _svg(width, height, lines)


def histogram(
    groups: Mapping[str, Sequence[float]], colors: Mapping[str, str], x_name: str, split: float | None, width: int = 540
) -> str:
    """Stacked counts per group in BINS bins; a dashed line at `split` separates two groups and shows their sizes."""
    height, left, right, top, bottom = 240, 40, 24, 24, 36
    everything = [value for values in groups.values() for value in values]
    x_ticks = ticks(min(everything), max(everything), 6)
    low, high = x_ticks[0], x_ticks[-1]
    counts = {name: np.histogram(values, bins=BINS, range=(low, high))[0] for name, values in groups.items()}
    y_ticks = ticks(0, int(np.sum(list(counts.values()), axis=0).max()), 4)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    def up(count: float) -> float:
        return height - bottom - count / y_ticks[-1] * (height - top - bottom)

    lines = []
    for t in y_ticks:
        lines += [_line(left, up(t), width - right, up(t), GRID), _text(left - 6, up(t), f"{t:g}", "end", 10, MUTED)]
    floor, step = np.zeros(BINS), (width - left - right) / BINS
    for name, heights in counts.items():
        for place in np.flatnonzero(heights):
            y, tall = up(floor[place] + heights[place]), up(0) - up(heights[place])
            lines.append(_box(left + place * step + 0.75, y, step - 1.5, tall, f'fill="{colors[name]}"'))
        floor += heights
    lines += [_text(across(t), height - bottom + 13, f"{t:g}", "middle", 10, MUTED) for t in x_ticks]
    lines.append(_text((left + width - right) / 2, height - 7, x_name, "middle", 10, MUTED))
    if split is not None:
        x, (below, above) = across(split), groups
        lines.append(_line(x, top - 12, x, up(0), INK, ' stroke-dasharray="4 3"'))
        lines.append(_text(x - 7, top - 10, f"{len(groups[below])} {below}", "end", 11, colors[below], "600"))
        lines.append(_text(x + 7, top - 10, f"{len(groups[above])} {above}", "start", 11, colors[above], "600"))
    return _svg(width, height, lines)


def heat_map(
    shares: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    marked: Collection[tuple[int, int]] = (),
    width: int = 560,
    empty: Collection[tuple[int, int]] = (),
) -> str:
    """Shares [R, C] in 0..1 as shaded cells with their value in per cent if it fits; cells in `marked` are framed.

    Cells in `empty` have no value and are not drawn; a share of 0 is.
    """
    left = 14 + 6.4 * max(map(len, row_names))
    cell = max(9.0, min(34.0, (width - left - 4) / len(column_names)))
    size = max(7, min(11, int(0.62 * cell)))
    top = 12 + 0.58 * size * max(map(len, column_names))
    lines, frames = [], []
    for column, name in enumerate(column_names):
        x = left + (column + 0.5) * cell
        lines.append(_text(x, top - 6, name, size=size, extra=f' transform="rotate(-90 {x:.1f} {top - 6:.1f})"'))
    for row, name in enumerate(row_names):
        y = top + row * cell
        lines.append(_text(left - 6, y + cell / 2, name, "end", size))
        for column, share in enumerate(np.nan_to_num(shares[row]).tolist()):
            if (row, column) in empty:
                continue
            x = left + column * cell
            lines.append(_box(x, y, cell - 1, cell - 1, f'fill="{shade(share)}"'))
            if (row, column) in marked:
                thick = 2 if cell > 14 else 1
                frames.append(_box(x, y, cell - 1, cell - 1, f'fill="none" stroke="{FRAME}" stroke-width="{thick}"'))
            if share >= 0.005 and cell >= 18:
                ink = "#fff" if share > 0.5 else INK
                lines.append(_text(x + cell / 2, y + cell / 2, f"{100 * share:.0f}", "middle", size, ink))
    return _svg(left + len(column_names) * cell + 4, top + len(row_names) * cell + 4, lines + frames)


def scatter(
    panels: Mapping[str, np.ndarray], groups: Sequence[str], colors: Mapping[str, str], width: int = 380
) -> str:
    """Points [N, 2] of each panel in a square, panels side by side, coloured by group, with a legend below."""
    gap, top, used = 14, 26, [name for name in colors if name in set(groups)]
    lines = []
    for place, (title, points) in enumerate(panels.items()):
        left = place * (width + gap)
        low, high = points.min(0), points.max(0)
        extent = max(float((high - low).max()), 1e-9)
        offset = (extent - (high - low)) / 2  # the shorter axis in the middle
        lines += [_text(left + 2, 12, title, weight="600"), _frame(left, top, width)]
        for (x, y), group in zip((points - low + offset) / extent, groups, strict=True):
            at = f'cx="{left + 8 + x * (width - 16):.1f}" cy="{top + 8 + (1 - y) * (width - 16):.1f}"'
            lines.append(f'<circle {at} r="3" fill="{colors[group]}" fill-opacity="0.8"/>')
    total, x, y = len(panels) * (width + gap) - gap, 6.0, top + width + 16
    for name in used:
        length = 22 + 6.6 * len(name)
        if x + length > total:
            x, y = 6.0, y + 17
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colors[name]}"/>')
        lines.append(_text(x + 9, y, name, color=MUTED))
        x += length
    return _svg(total, y + 14, lines)


def legend(colors: Mapping[str, str]) -> str:
    """Colour squares with names, as HTML."""
    items = (f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in colors.items())
    return f'<p class="legend">{"".join(items)}</p>'


def shade(share: float) -> str:
    """Colour of a share: white to blue, with small shares visible."""
    strength = min(1.0, max(0.0, share)) ** 0.7
    low, high = np.array([245, 247, 250]), np.array([36, 87, 197])
    return "#" + "".join(f"{int(round(v)):02x}" for v in low + strength * (high - low))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose low..high."""
    span = high - low if high - low > 1e-6 else 1.0
    size = 10 ** math.floor(math.log10(span / count))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if span / (size * m) <= count + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def thin(points: Points, most: int = 160) -> list[tuple[float, float]]:
    """At most `most` points; neighbours are averaged."""
    if not points:
        return []
    parts = np.array_split(np.asarray(points, dtype=float), min(most, len(points)))
    return [tuple(part.mean(0).tolist()) for part in parts]


def _svg(width: float, height: float, lines: list[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(lines)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{extra}/>'


def _box(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {look}/>'


def _frame(x: float, y: float, side: float) -> str:
    return _box(x, y, side, side, f'fill="none" stroke="{GRID}"')


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    size: float = 11,
    color: str = INK,
    weight: str = "400",
    extra: str = "",
) -> str:
    look = f'font-size="{size}" fill="{color}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look} dominant-baseline="central"{extra}>{escape(text)}</text>'
