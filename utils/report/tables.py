"""Tables on the terminal, in Markdown, LaTeX and CSV. Values are fractions, shown in per cent."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STYLES = ("text", "markdown", "latex", "csv")
# groups of classes in the order they are shown; metrics.json has `miou` for all classes, else `<group>_miou`
GROUPS = ("base", "novel", "old", "new", "seen", "unseen", "all", "foreground", "harmonic")
# metric of each column in the table of the steps of a task
STEP_COLUMNS = {"old": "old_miou", "new": "new_miou", "all": "miou", "foreground": "foreground_miou"}
Rows = Sequence[Sequence[str]]  # the heading first


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, "-" for None."""
    return "-" if value is None else f"{round(100 * value, 1) + 0.0:.1f}"  # + 0.0 makes 0.0 of -0.0


def spread(values: Iterable[float | None], sign: str = "") -> str:
    """Mean ± sample standard deviation of fractions, in per cent; `sign="+"` always shows the sign of the mean."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):{sign}.1f}{deviation}"


def group_means(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Group of GROUPS -> its mean IoU in metrics.json."""
    keys = {group: "miou" if group == "all" else f"{group}_miou" for group in GROUPS}
    return {group: metrics[key] for group, key in keys.items() if key in metrics}


def accuracies(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Printed name -> accuracy in metrics.json: of each group, all classes, all pixels; frequency-weighted IoU."""
    named = {f"{group}_accuracy": f"accuracy, {group}" for group in GROUPS}
    named |= {"mean_accuracy": "accuracy, all", "pixel_accuracy": "accuracy, pixels"}
    named |= {"fw_iou": "frequency-weighted IoU"}
    return {name: metrics[key] for key, name in named.items() if key in metrics}


def print_metrics(metrics: Mapping[str, Any], title: str, paper: Mapping[str, float] | None = None) -> None:
    """Print IoU of every class, group means and accuracies in per cent; with `paper`, its values in a second column."""
    rows = [[name, percent(value)] for name, value in metrics["per_class"].items()]
    groups = [[name, percent(value)] for name, value in group_means(metrics).items()]
    others = [[name, percent(value)] for name, value in accuracies(metrics).items()]
    heading = ["class", "IoU"]
    if paper:
        heading = [*heading, "paper"]
        rows = [[*row, f"{paper[row[0]]:.1f}" if row[0] in paper else "-"] for row in rows]
        mean = f"{statistics.mean(paper.values()):.1f}"
        groups = [[*row, mean if row[0] == "all" else "-"] for row in groups]
        others = [[*row, "-"] for row in others]
    print(f"{title}\n{_aligned([heading, None, *rows, None, *groups, *([None] if others else []), *others])}")


def print_comparison(compared: Sequence[Mapping[str, Any]]) -> None:
    """Print group means in per cent for each choice that uses validation labels: model and matching of clusters."""
    if len(compared) < 2:
        return
    groups = [group for group in GROUPS if group in group_means(compared[0])]
    rows = [
        [f"{row['model']}, {row['matching']} matching", *(percent(group_means(row).get(group)) for group in groups)]
        for row in compared
    ]
    print(f"choices made with validation labels\n{_aligned([['model', *groups], None, *rows])}")


def steps_table(metrics: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Old, new, all and foreground mIoU in per cent, a row per step, the heading first."""
    rows = [[f"step {found['step']}", *(percent(found.get(key)) for key in STEP_COLUMNS.values())] for found in metrics]
    return [["after", *STEP_COLUMNS], *rows]


def print_steps(metrics: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the table of the steps, then the IoU of every class after the last step, in per cent."""
    classes = [[name, percent(value)] for name, value in metrics[-1]["per_class"].items()]
    print(f"{title}\n{table(steps_table(metrics))}")
    print(f"after the last step\n{table([['class', 'IoU'], *classes])}")


def print_repeats(metrics: Mapping[str, Any]) -> None:
    """Print what a probe reports in addition: other models, spread over seeds, cluster scores, fewer classes."""
    for row in metrics.get("compared", [])[1:]:
        print(f"  {row['model']}: mIoU {percent(row['miou'])}")
    if metrics.get("miou_std") is not None:
        count = len(metrics["seeds"])
        print(f"  mIoU {percent(metrics['miou'])} ± {percent(metrics['miou_std'])} over {count} seeds")
    for when, of in (("after", "classes from clusters, as published"), ("before", "the clusters themselves")):
        if f"nmi_{when}_match" in metrics:
            nmi, ari = (metrics[f"{score}_{when}_match"] for score in ("nmi", "ari"))
            print(f"  {when} matching: NMI {nmi:.3f}, ARI {ari:.3f} ({of})")
    if "kept_miou" in metrics:
        print(f"  mIoU of {len(metrics['kept_per_class'])} classes: {percent(metrics['kept_miou'])}")


def table(rows: Rows, style: str = "text") -> str:
    """Rows of text, the heading first, in one of STYLES."""
    if style == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().removesuffix("\n")
    if style == "text":
        return _aligned([rows[0], None, *rows[1:]])
    if style == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---|" + "--:|" * (len(rows[0]) - 1), *lines[1:]])
    lines = [" & ".join(row).replace("±", "$\\pm$").replace("_", r"\_") + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", lines[0], r"\hline", *lines[1:], r"\end{tabular}"])


def _aligned(rows: Sequence[Sequence[str] | None]) -> str:
    """First column left-aligned, the others right-aligned; None draws a rule."""
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
