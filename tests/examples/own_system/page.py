"""Plain supervised segmentation: what report.py shows of a run, and collect.py's table."""

from reports.common import Page, class_bars, loss_charts
from tests.examples.own_system.config import SupervisedConfig
from utils.checkpoint import read_json
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable
from utils.report.tables import percent
from utils.run_folder import require_stage, stage_dir

TABLE = ResultTable(
    columns=(Column("mIoU", "miou"),),
    main="mIoU",
    evaluated_by="eval.py",
    method=lambda stage: "supervised" if stage.name == "eval_supervised" else None,
)


def page(cfg: SupervisedConfig) -> Page:
    metrics = read_json(require_stage(cfg, "eval_supervised", "metrics.json", "eval.py"))
    folder, colors = stage_dir(cfg, "supervised"), charts.series_colors(["supervised"])
    bars = class_bars({"supervised": metrics}, list(metrics["per_class"]), colors, "miou")
    losses = html.side_by_side(loss_charts({"training": folder}))
    sections = [html.section("Classes", "IoU in per cent.", bars), html.section("Training", "The loss.", losses)]
    table = [["method", "mIoU"], ["supervised", percent(metrics["miou"])]]
    return Page("Supervised segmentation", html.note("All classes at once."), sections, {"": table}, folder.parent)
