"""Zero-shot segmentation: the table over runs and the published values."""

from collections.abc import Mapping
from typing import Any

from utils.report.aggregate import Column, Paper, ResultTable
from utils.report.results import Stage

GROUPS = ("seen", "unseen", "all", "harmonic")
# mIoU (Bucher et al., NeurIPS 2019, tables 1, 3 and 4): data set, number of unseen classes, method, then GROUPS.
# - is not published; * is from memory, without a second text that confirms it
PUBLISHED = """
    pascal   2 devise   68.1   3.2  -     6.1
    pascal   4 devise   64.3*  2.9* -     5.5*
    pascal   6 devise   39.8*  2.7* -     5.1*
    pascal   8 devise   35.7*  2.0* -     3.8*
    pascal  10 devise   31.7*  1.9  -     3.6
    pascal   2 zs3      72.0  35.4  68.5* 47.5
    pascal   4 zs3      66.4* 23.2* 58.2* 34.4*
    pascal   6 zs3      47.3* 24.2* 40.7* 32.0*
    pascal   8 zs3      29.2* 22.9* 26.8* 25.7*
    pascal  10 zs3      33.9* 18.1  26.3  23.6
    pascal   2 zs5      75.7* 75.8  75.8  75.7*
    context  2 devise   35.8*  2.7  -     5.0
    context  4 devise   33.4*  2.5* -     4.7*
    context  6 devise   31.9*  2.1* -     3.9*
    context  8 devise   22.0*  1.7* -     3.2*
    context 10 devise   17.5*  1.3* -     2.4*
    context  2 zs3      41.6* 21.6  41.0* 28.4
    context  4 zs3      37.2* 24.9  36.4* 29.8*
    context  6 zs3      32.1* 20.7* 30.9* 25.2*
    context  8 zs3      20.9* 16.0* 20.3* 18.1*
    context 10 zs3      20.8  12.7  19.4* 15.8
    context  2 zs3_gc   41.5* 30.0  -    34.8
    context  4 zs3_gc   39.5* 29.1  -    33.5*
    context  6 zs3_gc   34.8* 21.6* 33.5* 26.7*
    context  8 zs3_gc   22.8* 16.8* 22.0* 19.3*
    context 10 zs3_gc   24.0* 14.1* 22.3* 17.8*
    context  2 zs5      -     55.5  -     -
    context 10 zs5      27.0  20.7  -    23.4
"""


def read_published(text: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """(data set, split, method) -> {group: value as shown} of lines like those of PUBLISHED."""
    found = {}
    for dataset, unseen, method, *values in map(str.split, text.split("\n")[1:-1]):
        known = {group: value for group, value in zip(GROUPS, values, strict=True) if value != "-"}
        found[dataset, f"unseen{unseen}", method] = known
    return found


def method_of(stage: Stage) -> str | None:
    """eval_zs3_strict -> "zs3, strict"; None for a stage that is no evaluation."""
    name = stage.name.removeprefix("eval_")
    row = f"{name.removesuffix('_strict')}, strict" if name.endswith("_strict") else name
    return row if name != stage.name else None


def with_area(stage: Stage) -> Mapping[str, Any]:
    """metrics.json with the area below the curve of unseen over seen mIoU as a value."""
    return {**stage.metrics, "sweep_area": stage.metrics.get("sweep", {}).get("area")}


TABLE = ResultTable(
    columns=(
        Column("seen", "seen_miou"),
        Column("unseen", "unseen_miou"),
        Column("all", "miou"),
        Column("harmonic", "harmonic_miou", main=True),
        Column("area", "sweep_area"),
    ),
    evaluated_by="eval.py",
    method=method_of,
    scores=with_area,
    names=("split", "method"),
    methods=("step1", "devise", "zs3", "zs3, strict", "zs3_gc", "zs3_gc, strict", "zs5", "zs5, strict"),
    paper=Paper(read_published(PUBLISHED), columns=("unseen", "harmonic")),
)
