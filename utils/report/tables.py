"""Tables on the terminal, in Markdown, LaTeX and CSV. Values are fractions, shown in per cent."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STYLES = ("text", "markdown", "latex", "csv")
# means over groups of classes in the order they are shown; metrics.json has `miou` for all, `<group>_miou` for others
GROUPS = ("base", "novel", "old", "new", "seen", "unseen", "all", "foreground", "harmonic")
Rows = Sequence[Sequence[str]]  # the heading first


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal, "-" for None."""
    return "-" if value is None else f"{round(100 * value, 1) + 0.0:.1f}"  # + 0.0 makes 0.0 of -0.0


def spread(values: Iterable[float | None], sign: str = "") -> str:
    """Mean ± sample standard deviation of fractions, in per cent; `sign="+"` shows the sign of the mean always."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):{sign}.1f}{deviation}"


def group_means(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The group means that metrics.json holds, under the names of GROUPS."""
    keys = {group: "miou" if group == "all" else f"{group}_miou" for group in GROUPS}
    return {group: metrics[key] for group, key in keys.items() if key in metrics}


def accuracies(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name -> pixel accuracy, mean class accuracy of each group and of all, frequency-weighted IoU, of metrics.json."""
    named = {f"{group}_accuracy": f"accuracy, {group}" for group in GROUPS}
    named |= {"mean_accuracy": "accuracy, all", "pixel_accuracy": "accuracy, pixels"}
    named |= {"fw_iou": "frequency-weighted IoU"}
    return {name: metrics[key] for key, name in named.items() if key in metrics}


def print_metrics(metrics: Mapping[str, Any], title: str, paper: Mapping[str, float] | None = None) -> None:
    """One aligned table in per cent: IoU of every class, beside the `paper`'s if given, the group means, accuracies."""
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
    """What the choices that use validation labels are worth: group means by model and way of matching, in per cent."""
    if len(compared) < 2:
        return
    groups = [group for group in GROUPS if group in group_means(compared[0])]
    rows = [
        [f"{row['model']}, {row['matching']} matching", *(percent(group_means(row).get(group)) for group in groups)]
        for row in compared
    ]
    print(f"choices made with validation labels\n{_aligned([['model', *groups], None, *rows])}")


def steps_table(metrics: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Old, new, all and foreground mIoU after each step of a task, a row per step."""
    keys = ("old_miou", "new_miou", "miou", "foreground_miou")
    rows = [[f"step {m['step']}", *(percent(m.get(key)) for key in keys)] for m in metrics]
    return [["after", "old", "new", "all", "foreground"], *rows]


def print_steps(metrics: Sequence[Mapping[str, Any]], title: str) -> None:
    """The table of the steps of a task, then the IoU of every class after the last, in per cent."""
    classes = [[name, percent(value)] for name, value in metrics[-1]["per_class"].items()]
    print(f"{title}\n{table(steps_table(metrics))}")
    print(f"after the last step\n{table([['class', 'IoU'], *classes])}")


def print_repeats(metrics: Mapping[str, Any]) -> None:
    """What may come besides the IoU of each class: other models, the spread over repetitions, fewer classes."""
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
    """Rows of text, the heading first, as one of STYLES."""
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
