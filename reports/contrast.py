"""MaskContrast's pre-training: what report.py shows of it; collect.py's table."""

from pathlib import Path
from typing import Any

from reports.common import Page, loss_charts, score_curves
from utils.config.contrast import ContrastConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.aggregate import Column, ResultTable
from utils.report.results import Curve, find_stages, finished_stages, read_history
from utils.report.tables import percent
from utils.run_folder import stage_dir

PRETRAIN = "python pretrain_contrast.py CONFIG"
LOSSES = ("contrast", "saliency")
RANKS = {"top1": "first", "top5": "among the first five"}  # place of an object's own prototype


def page(cfg: ContrastConfig) -> Page:
    """Losses, how often a pixel finds its own object, how well the saliency head finds the masks."""
    folder = stage_dir(cfg, "pretrain")
    metrics = finished_stages(folder.parent, PRETRAIN).get("pretrain")
    if metrics is None:
        raise UserError(f"{folder}: pre-training is not finished; run first: {PRETRAIN}")
    train, _ = read_history(folder / "history.jsonl")
    facts = f"{cfg.model.backbone}, {metrics.get('training_images', '-')} images with object masks, no labels."
    return Page(
        title=f"MaskContrast: {Path(cfg.data.dataset).name}",
        lead=html.chips(facts, []),
        sections=[headline(metrics, train), losses(folder), saliency(folder), pointer(folder.parent)],
        tables={"": result_rows(metrics, train)},
        folder=folder.parent,
    )


def result_rows(metrics: dict[str, Any], train: dict[str, Curve]) -> list[list[str]]:
    """Where training ended: one row."""
    last = {name: points[-1][1] for name, points in train.items() if points}
    cells = [f"{last[name]:.3f}" if name in last else "-" for name in LOSSES]
    cells += [percent(last.get(name)) for name in RANKS]
    heading = ["pre-training", "epochs", *(f"{name} loss" for name in LOSSES), "top 1", "top 5", "saliency mIoU"]
    epochs = str(metrics.get("epoch", "-"))
    return [heading, ["last reported step", epochs, *cells, percent(metrics.get("saliency_miou"))]]


def headline(metrics: dict[str, Any], train: dict[str, Curve]) -> str:
    heading, row = result_rows(metrics, train)
    intro = (
        "Losses and ranks of one batch, saliency mIoU of the validation images; ranks and mIoU in per cent. They tell "
        "that training went well, not what the embeddings are worth: that takes a probe."
    )
    return html.section("Results", intro, html.table(heading, [(row, "")]))


def losses(folder: Path) -> str:
    """The two losses, and the ranks, over steps."""
    title = "Training"
    train, _ = read_history(folder / "history.jsonl")
    ranks = {name: charts.thin(train.get(key, [])) for key, name in RANKS.items()}
    colors = charts.series_colors(ranks)
    parts = loss_charts({"Losses": folder}, leave_out=RANKS)
    drawn = charts.curves(ranks, colors, "step", percent=True)
    parts += [("Own prototype is ranked", charts.legend(colors) + drawn)] if drawn else []
    intro = (
        "Contrast: cross-entropy of every object pixel against the mean embedding of its object in another view and of "
        "other objects. Saliency: balanced binary cross-entropy of the object masks."
    )
    return html.section(title, intro, html.side_by_side(parts))


def saliency(folder: Path) -> str:
    """How well the saliency head finds the masks of the validation images, over epochs."""
    curves = score_curves({"saliency mIoU": folder}, "saliency_miou")
    if not curves:
        return ""
    drawn = charts.curves(curves, charts.series_colors(curves), "epoch", percent=True, width=540)
    return html.section("Saliency", "mIoU of object and background on validation images, in per cent.", drawn)


def pointer(folder: Path) -> str:
    """Where the embeddings are evaluated."""
    title = "What the embeddings know"
    probes = [stage.folder for stage in find_stages([folder]) if stage.system == "probe"]
    if not probes:
        command = f"python probe_features.py PROBE_CONFIG mode=kmeans checkpoint={folder / 'pretrain' / 'last.pth'}"
        return html.absent(title, "No probe of it lies here", command)
    networks = sorted({str(path.parent.relative_to(folder.resolve())) for path in probes})
    text = f"Evaluated below this folder: {', '.join(networks)}. Their page: python report.py PROBE_CONFIG."
    return html.section(title, text, "")


TABLE = ResultTable(
    columns=(Column("saliency mIoU", "saliency_miou"),),
    main="saliency mIoU",
    evaluated_by="pretrain_contrast.py",
    method=lambda stage: stage.name,
)
