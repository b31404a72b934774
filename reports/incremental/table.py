"""Class-incremental segmentation: the table over runs and the published values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.report.aggregate import Column, Paper, ResultTable
from utils.report.results import Stage

REPORTED = ("mib", "plop", "ssul", "ssul_m")
# mIoU of all classes, setting overlap (Cha et al., NeurIPS 2021, and the README of its code)
# (data set, task) -> REPORTED
PUBLISHED = {
    ("pascal", "10-1"): (12.65, 30.45, 59.25, 64.12),
    ("pascal", "15-1"): (29.29, 54.64, 67.61, 71.37),
    ("pascal", "5-3"): (46.71, 18.68, 56.89, 58.37),
    ("pascal", "19-1"): (69.15, 73.54, 75.44, 76.49),
    ("pascal", "15-5"): (70.08, 70.09, 71.22, 73.02),
    ("pascal", "5-1"): (10.03, 6.46, 48.65, 55.11),
    ("pascal", "2-1"): (9.88, 4.47, 38.32, 44.74),
    ("ade", "100-5"): (25.96, 28.75, 32.48, 34.56),
    ("ade", "100-10"): (29.24, 31.59, 33.10, 34.46),
    ("ade", "100-50"): (32.79, 32.94, 33.58, 34.37),
    ("ade", "50-50"): (29.31, 30.40, 29.56, 29.77),
}


def after_last_step(stage: Stage) -> Mapping[str, Any]:
    """Columns from summary.json: metrics after the last step, mean over steps of mIoU over all classes, forgetting."""
    last, means = stage.metrics.get("last", {}), stage.metrics.get("mean_over_steps", {})
    return {**last, "mean_over_steps": means.get("miou"), "forgetting": stage.metrics.get("forgetting")}


TABLE = ResultTable(
    columns=(
        Column("old", "old_miou"),
        Column("new", "new_miou"),
        Column("all", "miou", main=True),
        Column("foreground", "foreground_miou"),
        Column("mean over steps", "mean_over_steps"),
    ),
    evaluated_by="train_incremental.py",
    method=lambda stage: stage.name if "mean_over_steps" in stage.metrics else None,
    scores=after_last_step,
    split=lambda config: f"{Path(config.get('task', '')).stem}-{config.get('setting', 'overlap')}",
    names=("task", "method"),
    methods=("finetune", "mib", "plop", "ssul", "ssul_m", "joint"),
    against="plop",
    paper=Paper(
        {
            (dataset, f"{task}-overlap", method): {"all": f"{value:.1f}"}
            for (dataset, task), values in PUBLISHED.items()
            for method, value in zip(REPORTED, values, strict=True)
        },
        columns=("all",),
    ),
)
