"""Zero-shot segmentation: the page of a split."""

from collections.abc import Sequence

from data.layouts import Sample
from data.zeroshot.builder import ZeroShotData
from reports.methods_page import MethodsPage, MethodsRun, classes, gallery, learning, scores
from reports.zeroshot.table import TABLE
from utils.report import charts, html
from utils.report.aggregate import Column
from utils.report.tables import percent


def bias(run: MethodsRun) -> str:
    """Unseen over seen mIoU while a constant is subtracted from the scores of seen classes."""
    title = "Calibrated bias"
    sweeps = {name: found["sweep"] for name, found in run.metrics.items() if "sweep" in found}
    if not sweeps:
        return html.absent(title, "No evaluation has measured it", run.evaluate)
    curves = {}
    for name, sweep in sweeps.items():
        points = {round(100 * x, 2): y for x, y in zip(sweep["seen_miou"], sweep["unseen_miou"], strict=True)}
        curves[name] = sorted(points.items())
    colors = {name: run.colors[name] for name in curves}
    drawn = charts.legend(colors) + charts.curves(curves, colors, "seen mIoU", percent=True, width=540)
    rows = [
        ([name, f"{s['best_gamma']:.2f}", percent(s["best_harmonic_miou"]), percent(s["area"])], "")
        for name, s in sweeps.items()
    ]
    note = html.table(["method", "best gamma", "harmonic there", "area"], rows)
    intro = (
        "Unseen mIoU over seen mIoU, in per cent, while a constant gamma is subtracted from the scores of seen "
        "classes. The best gamma is chosen on validation labels, unseen classes included: an upper bound, not a result."
    )
    return html.section(title, intro, html.side_by_side([("", drawn), ("", note)]))


def val_images(data: ZeroShotData) -> Sequence[Sample]:
    return data.val_images(data.cfg.evaluation.size).samples


page = MethodsPage(
    title="Zero-shot segmentation",
    table=TABLE,
    open_data=ZeroShotData.open,
    images=val_images,
    kinds=("unseen", "seen"),
    tile=TABLE.main,
    about=lambda cfg: f"{cfg.model.backbone}, {cfg.folder}.",
    intro="Mean intersection over union in per cent; all classes compete with each other (generalised zero-shot). "
    "Area: below the curve of unseen over seen mIoU. * published value from memory, not confirmed by a second text.",
    evaluate="python eval.py CONFIG method={}",
    predict="evaluation.native=true save_predictions=true",
    sections=(scores, bias, classes, gallery, learning),
    bars=("seen", "unseen", "harmonic"),
    accuracies=(
        Column("seen PA", "seen_pixel_accuracy"),
        Column("seen MA", "seen_accuracy"),
        Column("unseen PA", "unseen_pixel_accuracy"),
        Column("unseen MA", "unseen_accuracy"),
        Column("all PA", "pixel_accuracy"),
        Column("all MA", "mean_accuracy"),
    ),
).page
