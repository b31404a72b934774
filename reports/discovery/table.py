"""Novel class discovery: the table over runs and the published values."""

from collections.abc import Mapping
from typing import Any

from utils.report.aggregate import MEAN, Column, Paper, ResultTable
from utils.report.results import Stage
from utils.report.tables import group_means, percent

METHODS = {  # row -> evaluated stage
    "base model": "eval_base",
    "basic, random labels": "eval_basic_random",
    "basic": "eval_basic",
    "EUMS": "eval_eums",
    "basic, oracle labels": "eval_basic_oracle",
}
BASELINES = {"basic, semi-supervised k-means": "eval_basic_semi"}  # rows only if they were run
HEADING = ["method", "base mIoU", "novel mIoU", "all mIoU"]
# novel mIoU, mean of folds 0-3, ResNet-50 (Zhao et al., CVPR 2022, abstract); values of single folds are not known here
PUBLISHED = {
    ("pascal", MEAN, "basic"): {"novel mIoU": "49.8"},
    ("pascal", MEAN, "EUMS"): {"novel mIoU": "59.1"},
}


def method_of(stage: Stage) -> str | None:
    """Row of an evaluated stage; eval_NAME of any other method is the row NAME."""
    known = {folder: row for row, folder in (METHODS | BASELINES).items()}
    return known.get(stage.name, stage.name.removeprefix("eval_")) if stage.name.startswith("eval_") else None


def table_means(metrics: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Group means to compare methods by. "all" of a base model is left out: it covers fewer classes."""
    means = group_means(metrics or {})
    return means if "novel" in means else {name: value for name, value in means.items() if name != "all"}


def table_cells(metrics: Mapping[str, Any] | None) -> list[str]:
    """Base, novel and all mIoU of one metrics.json as text."""
    means = table_means(metrics)
    return [percent(means.get(group)) for group in ("base", "novel", "all")]


def scores_of(stage: Stage) -> Mapping[str, Any]:
    """metrics.json without the mean that `table_means` leaves out, with novel mIoU by epoch and, for generalised
    discovery (data.images=mixed), the harmonic mean and the novel mIoU with several clusters per class.
    """
    kept = "all" in table_means(stage.metrics)
    found = {key: value for key, value in stage.metrics.items() if key != "miou" or kept} | _by_epoch(stage)
    if stage.config.get("data", {}).get("images") == "mixed" and "novel_miou" in found:
        rows = _official(stage)
        found |= {"harmonic": found["harmonic_miou"], "novel_many": rows[0]["novel_miou"] if rows else None}
    return found


def _by_epoch(stage: Stage) -> dict[str, float | None]:
    """novel_last, of the last epoch, and novel_best, of the epoch chosen on validation labels; official matching."""
    novel = {row["model"]: row.get("novel_miou") for row in _official(stage)}
    if len(novel) == 1 and "given file" not in novel:  # both are the same epoch, or only one was asked for
        config = stage.config.get("evaluation", {})
        novel = dict.fromkeys(("last epoch", "best epoch"), *novel.values()) if config.get("compare", True) else novel
    return {f"novel_{name}": novel[f"{name} epoch"] for name in ("last", "best") if f"{name} epoch" in novel}


def _official(stage: Stage) -> list[dict[str, Any]]:
    """Scores of each evaluated network with the official matching of clusters to classes."""
    return [row for row in stage.metrics.get("compared", []) if row["matching"] == "official"]


TABLE = ResultTable(
    columns=(
        Column("base mIoU", "base_miou"),
        Column("novel mIoU", "novel_miou", main=True),
        Column("all mIoU", "miou"),
        Column("harmonic", "harmonic", optional=True),
        Column("novel, many to one", "novel_many", optional=True),
        Column("novel, last epoch", "novel_last", optional=True),
        Column("novel, best epoch", "novel_best", optional=True),
    ),
    evaluated_by="eval.py",
    method=method_of,
    scores=scores_of,
    methods=(*METHODS, *BASELINES),
    variants=(  # scripts/discovery/ablations.sh
        Column("purity", "purity", "pseudo"),
        Column("basic novel", "novel_miou", "eval_basic"),
        Column("EUMS novel", "novel_miou", "eval_eums", main=True),
        Column("EUMS base", "base_miou", "eval_eums"),
    ),
    against="basic",
    paper=Paper(
        PUBLISHED,
        columns=("novel mIoU",),
        place="mean",
        splits=("fold0", "fold1", "fold2", "fold3"),
        about="the paper's value is known for the mean of folds 0-3 only",
    ),
)
