"""Tables on the terminal and in Markdown."""

from collections.abc import Sequence
from typing import Any

METHODS = {  # row of a results table -> evaluated stage
    "base model": "eval_base",
    "basic, random labels": "eval_basic_random",
    "basic": "eval_basic",
    "EUMS": "eval_eums",
    "basic, oracle labels": "eval_basic_oracle",
}
GROUPS = ("base", "novel", "all", "harmonic")  # group means in the order they are shown; all = `miou`


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def group_means(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The group means that metrics.json holds, under the names of GROUPS; "all" is called `miou` there."""
    keys = {group: "miou" if group == "all" else f"{group}_miou" for group in GROUPS}
    return {group: metrics[key] for group, key in keys.items() if key in metrics}


def print_metrics(metrics: dict[str, Any], title: str) -> None:
    """One aligned table: IoU of every class, then the group means, in per cent."""
    classes = [[name, percent(value)] for name, value in metrics["per_class"].items()]
    groups = [[name, percent(value)] for name, value in group_means(metrics).items()]
    print(f"{title}\n{_aligned([['class', 'IoU'], None, *classes, None, *groups])}")


def chain_table(rows: Sequence[tuple[str, dict[str, Any] | None]], markdown: bool = False) -> str:
    """Methods and their metrics.json (None: not run) as a table of base, novel and all mIoU in per cent.

    The base model has no novel figure; its mean covers fewer classes than the others' and is left out of "all".
    """
    return results_table([[name, *table_figures(metrics)] for name, metrics in rows], markdown)


def results_table(rows: Sequence[list[str]], markdown: bool = False) -> str:
    """Rows of method, base, novel and all mIoU as text under their heading."""
    cells = [["method", "base mIoU", "novel mIoU", "all mIoU"], *rows]
    if not markdown:
        return _aligned([cells[0], None, *cells[1:]])
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---|--:|--:|--:|", *lines[1:]])


def table_figures(metrics: dict[str, Any] | None) -> list[str]:
    """base, novel and all mIoU of one metrics.json as text."""
    means = group_means(metrics or {})
    if "novel" not in means:
        means.pop("all", None)
    return [percent(means.get(group)) for group in ("base", "novel", "all")]


def _aligned(rows: Sequence[list[str] | None]) -> str:
    """First column to the left, the others to the right; None draws a rule."""
    widths = [max(map(len, column)) for column in zip(*(row for row in rows if row), strict=True)]
    rule = "  " + "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = []
    for row in rows:
        if row is None:
            lines.append(rule)
            continue
        rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join([row[0].ljust(widths[0]), *rest]))
    return "\n".join(lines)
