"""Supervised segmentation: what report.py shows of a run, and collect.py's table of many."""

from reports.common import Page, class_bars, loss_charts
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable, result_table
from utils.report.results import find_stages, finished_stages
from utils.run_folder import stage_dir

from .config import SupervisedConfig

TABLE = ResultTable(
    columns=(Column("mIoU", "miou"), Column("pixel accuracy", "pixel_accuracy")),
    main="mIoU",
    evaluated_by="eval.py",
    method=lambda stage: "supervised" if stage.name == "eval_train" else None,
)


def page(cfg: SupervisedConfig) -> Page:
    """Its scores, class by class, and the loss."""
    folder = stage_dir(cfg, "train").parent
    metrics = finished_stages(folder, "python train_supervised.py CONFIG")
    rows = result_table(find_stages([folder]), TABLE)
    scored = {"supervised": metrics.get("eval_train") or metrics["train"]}
    bars = class_bars(scored, list(scored["supervised"]["per_class"]), charts.series_colors(scored), "miou")
    sections = [
        html.section("IoU of every class", "In per cent.", bars),
        html.section("Training", "", html.side_by_side(loss_charts({"Loss": folder / "train"}))),
    ]
    return Page("Supervised segmentation", cfg.model.backbone, sections, {"": rows}, folder)
