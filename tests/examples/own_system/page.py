"""Supervised segmentation: the page of report.py and the table of collect.py."""

from reports.page import Page, class_scores, results, training
from utils.report import charts
from utils.report.aggregate import Column, ResultTable, result_table
from utils.report.results import find_stages, finished_stages
from utils.run_folder import stage_dir

from .config import SupervisedConfig

TABLE = ResultTable(
    columns=(Column("mIoU", "miou"), Column("pixel accuracy", "pixel_accuracy")),
    evaluated_by="eval.py",
    method=lambda stage: "supervised" if stage.name == "eval_train" else None,
)


def page(cfg: SupervisedConfig) -> Page:
    """Scores, IoU of every class, loss. Raises UserError if no stage is finished."""
    folder = stage_dir(cfg, "train").parent
    metrics = finished_stages(folder, "python train_supervised.py CONFIG")
    rows = result_table(find_stages([folder]), TABLE)
    scored = {"supervised": metrics.get("eval_train") or metrics["train"]}
    names, colors = list(scored["supervised"]["per_class"]), charts.series_colors(scored)
    sections = [
        results("In per cent.", (), rows),
        class_scores(scored, colors, {"All classes": (names, "miou")}),
        training({"train": folder / "train"}, "Loss over steps."),
    ]
    return Page("Supervised segmentation", cfg.model.backbone, sections, {"": rows}, folder)
