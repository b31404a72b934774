"""Tables on the terminal, in Markdown and in LaTeX."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

METHODS = {  # row of a results table -> evaluated stage
    "base model": "eval_base",
    "basic, random labels": "eval_basic_random",
    "basic": "eval_basic",
    "EUMS": "eval_eums",
    "basic, oracle labels": "eval_basic_oracle",
}
HEADING = ["method", "base mIoU", "novel mIoU", "all mIoU"]
STYLES = ("text", "markdown", "latex")
GROUPS = ("base", "novel", "all", "harmonic")  # group means in the order they are shown; all = `miou`


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def group_means(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The group means that metrics.json holds, under the names of GROUPS; "all" is called `miou` there."""
    keys = {group: "miou" if group == "all" else f"{group}_miou" for group in GROUPS}
    return {group: metrics[key] for group, key in keys.items() if key in metrics}


def print_metrics(metrics: dict[str, Any], title: str, paper: Mapping[str, float] | None = None) -> None:
    """One aligned table in per cent: IoU of every class, beside the `paper`'s if given, then the group means."""
    rows = [[name, percent(value)] for name, value in metrics["per_class"].items()]
    groups = [[name, percent(value)] for name, value in group_means(metrics).items()]
    heading = ["class", "IoU"]
    if paper:
        heading = [*heading, "paper"]
        rows = [[*row, f"{paper[row[0]]:.1f}" if row[0] in paper else "-"] for row in rows]
        groups = [[*row, f"{mean(paper.values()):.1f}" if row[0] == "all" else "-"] for row in groups]
    print(f"{title}\n{_aligned([heading, None, *rows, None, *groups])}")


def print_comparison(compared: Sequence[dict[str, Any]]) -> None:
    """What the choices that use validation labels are worth: group means by model and way of matching, in per cent."""
    if len(compared) < 2:
        return
    groups = [group for group in GROUPS if group in group_means(compared[0])]
    rows = [
        [f"{row['model']}, {row['matching']} matching", *(percent(group_means(row).get(group)) for group in groups)]
        for row in compared
    ]
    print(f"choices made with validation labels\n{_aligned([['model', *groups], None, *rows])}")


def print_steps(metrics: Sequence[dict[str, Any]], title: str) -> None:
    """Old, new, all and foreground mIoU after each step of a task, then the IoU of every class, in per cent."""
    keys = ("old_miou", "new_miou", "miou", "foreground_miou")
    rows = [[f"step {m['step']}", *(percent(m.get(key)) for key in keys)] for m in metrics]
    classes = [[name, percent(value)] for name, value in metrics[-1]["per_class"].items()]
    print(f"{title}\n{_aligned([['after', 'old', 'new', 'all', 'foreground'], None, *rows])}")
    print(f"after the last step\n{_aligned([['class', 'IoU'], None, *classes])}")


def print_probe(metrics: dict[str, Any]) -> None:
    """What an evaluation of features has besides the IoU of each class: other epochs, seeds, fewer classes."""
    for row in metrics.get("compared", [])[1:]:
        print(f"  {row['model']}: mIoU {percent(row['miou'])}")
    if metrics.get("miou_std") is not None:
        count = len(metrics["seeds"])
        agreement = f"NMI {metrics['nmi']:.3f}, ARI {metrics['ari']:.3f}"
        print(f"  mIoU {percent(metrics['miou'])} ± {percent(metrics['miou_std'])} over {count} seeds; {agreement}")
    if "kept_miou" in metrics:
        print(f"  mIoU of {len(metrics['kept_per_class'])} classes: {percent(metrics['kept_miou'])}")


def chain_table(rows: Sequence[tuple[str, dict[str, Any] | None]], style: str = "text") -> str:
    """Methods and their metrics.json (None: not run) as a table of base, novel and all mIoU in per cent."""
    return table([HEADING, *([name, *table_figures(metrics)] for name, metrics in rows)], style)


def table_means(metrics: dict[str, Any] | None) -> dict[str, float | None]:
    """group_means to compare methods by: "all" of a base model covers fewer classes than that of others, so it goes."""
    means = group_means(metrics or {})
    return means if "novel" in means else {name: value for name, value in means.items() if name != "all"}


def table_figures(metrics: dict[str, Any] | None) -> list[str]:
    """base, novel and all mIoU of one metrics.json as text."""
    means = table_means(metrics)
    return [percent(means.get(group)) for group in ("base", "novel", "all")]


def table(rows: Sequence[list[str]], style: str = "text") -> str:
    """Rows of text, the heading first, as `text`, `markdown` or `latex`."""
    if style == "text":
        return _aligned([rows[0], None, *rows[1:]])
    if style == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---|" + "--:|" * (len(rows[0]) - 1), *lines[1:]])
    lines = [" & ".join(row).replace("±", "$\\pm$") + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", lines[0], r"\hline", *lines[1:], r"\end{tabular}"])


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
