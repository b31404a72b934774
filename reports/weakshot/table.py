"""Weak-shot segmentation: the table over runs and the published values."""

from utils.report.aggregate import Column, Paper, ResultTable
from utils.report.results import Stage

# mIoU of all classes, one size at test time, ResNet-50, masks of all classes (Cheng et al., NeurIPS 2021, model zoo of
# MaskFormer): data set -> (number of splits, value). Values of SimFormer itself are not known here.
UPPER_BOUNDS = {"cocostuff10k": (9, "37.1"), "ade": (4, "44.5")}


def method_of(stage: Stage) -> str | None:
    """eval_simformer -> simformer; None for a stage that is no evaluation."""
    return stage.name.removeprefix("eval_") if stage.name.startswith("eval_") else None


TABLE = ResultTable(
    columns=(
        Column("novel", "novel_miou", main=True),
        Column("base", "base_miou"),
        Column("all", "miou"),
        Column("harmonic", "harmonic_miou"),
        Column("novel, strict", "novel_miou_strict", optional=True),
        Column("base, strict", "base_miou_strict", optional=True),
    ),
    evaluated_by="eval.py",
    method=method_of,
    names=("split", "method"),
    methods=("single", "simformer", "retrain", "supervised"),
    paper=Paper(
        {
            (dataset, f"split{number}", "supervised"): {"all": value}
            for dataset, (count, value) in UPPER_BOUNDS.items()
            for number in range(1, count + 1)
        },
        columns=("all",),
    ),
)
