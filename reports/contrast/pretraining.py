"""MaskContrast's pre-training: the page of an output_dir."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.page import Page, loss_charts, results, score_curves
from utils.config.contrast import ContrastConfig
from utils.errors import UserError
from utils.report import charts, html
from utils.report.results import find_stages, finished_stages, read_history
from utils.report.tables import Rows, percent
from utils.run_folder import stage_dir

PRETRAIN = "python pretrain_contrast.py CONFIG"
LOSSES = ("contrast", "saliency")
RANKS = {"top1": "first", "top5": "among the first five"}  # rank of the prototype of a pixel's own object


def page(cfg: ContrastConfig) -> Page:
    """Losses, ranks of a pixel's own object, mIoU of the saliency head.

    Raises UserError if the pre-training has not finished.
    """
    folder = stage_dir(cfg, cfg.trained.stage)
    finished = finished_stages(folder.parent, PRETRAIN)
    if folder.name not in finished:
        raise UserError(f"{folder}: pre-training is not finished; run first: {PRETRAIN}")
    images = finished[folder.name].get("training_images", "-")
    facts = f"{cfg.model.backbone}, {images} images with object masks, no labels."
    rows = result_rows(folder, finished)
    intro = (
        "Losses and ranks of one batch, saliency mIoU of the validation images; ranks and mIoU in per cent. They show "
        "that training went well, not how good the embeddings are: that takes a probe."
    )
    return Page(
        title=f"MaskContrast: {Path(cfg.data.dataset).name}",
        lead=html.chips(facts, []),
        sections=[results(intro, (), rows), losses(folder), saliency(folder), pointer(folder)],
        tables={"": rows},
        folder=folder.parent,
    )


def result_rows(folder: Path, finished: Mapping[str, Mapping[str, Any]]) -> Rows:
    """The last reported losses, ranks and saliency mIoU of `folder` and of the other pre-trainings next to it."""
    rows = [["pre-training", "epochs", *(f"{name} loss" for name in LOSSES), "top 1", "top 5", "saliency mIoU"]]
    trained = [name for name in finished if (folder.parent / name / "history.jsonl").exists() and name != folder.name]
    for name in (folder.name, *trained):
        train, _ = read_history(folder.parent / name / "history.jsonl")
        last = {loss: points[-1][1] for loss, points in train.items() if points}
        cells = [f"{last[loss]:.3f}" if loss in last else "-" for loss in LOSSES]
        cells += [
            percent(value) for value in (*(last.get(rank) for rank in RANKS), finished[name].get("saliency_miou"))
        ]
        title = f"{name}, last reported step" if trained else "last reported step"
        rows.append([title, str(finished[name].get("epoch", "-")), *cells])
    return rows


def losses(folder: Path) -> str:
    """The two losses and the ranks over steps."""
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
    return html.section("Training", intro, html.side_by_side(parts))


def saliency(folder: Path) -> str:
    """mIoU of the saliency head on the validation images over epochs."""
    curves = score_curves({"saliency mIoU": folder}, "saliency_miou")
    if not curves:
        return ""
    drawn = charts.curves(curves, charts.series_colors(curves), "epoch", percent=True, width=540)
    return html.section("Saliency", "mIoU of object and background on validation images, in per cent.", drawn)


def pointer(folder: Path) -> str:
    """The probes of the embeddings below the output_dir, or the command that makes one."""
    title, top = "What the embeddings know", folder.parent
    probes = [stage.folder for stage in find_stages([top]) if stage.system == "probe"]
    if not probes:
        command = f"python probe_features.py PROBE_CONFIG mode=kmeans checkpoint={folder / 'last.pth'}"
        return html.absent(title, "No probe of it lies here", command)
    networks = sorted({str(path.parent.relative_to(top.resolve())) for path in probes})
    text = f"Evaluated below this folder: {', '.join(networks)}. Their page: python report.py PROBE_CONFIG."
    return html.section(title, text, "")
