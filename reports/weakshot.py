"""Weak-shot segmentation: what report.py shows of a split, all methods beside each other; collect.py's table.

Training saves the proposals that are shown, as only the network can tell them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.io import read_array, read_image, voc_palette, write_array
from data.weakshot.builder import FIELDS, WeakShotData
from reports.common import (
    Page,
    class_section,
    label_painter,
    loss_charts,
    or_reason,
    pick_images,
    saved_gallery,
    score_curves,
)
from utils import dist
from utils.checkpoint import read_json, write_json
from utils.config.weakshot import WeakShotConfig
from utils.errors import UserError
from utils.labels import IGNORE
from utils.report import charts, html, pictures
from utils.report.aggregate import Column, ResultTable
from utils.report.published import UPPER_BOUNDS
from utils.report.results import Stage
from utils.report.tables import percent
from utils.run import Run
from utils.run_folder import stage_dir

METHODS = ("single", "simformer", "retrain", "supervised")
COLUMNS = (
    Column("novel", "novel_miou"),
    Column("base", "base_miou"),
    Column("all", "miou"),
    Column("harmonic", "harmonic_miou"),
    Column("novel, strict", "novel_miou_strict", optional=True),
    Column("base, strict", "base_miou_strict", optional=True),
)
EVALUATE = "python eval.py CONFIG method={}"
PROPOSALS = "proposals"  # folder of a stage
SHOWN = 4  # proposals of an image
Proposals = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
SURE = 128  # of 255: where a proposal's mask is drawn


@dataclass(frozen=True)
class SplitRun:
    """The evaluated methods of one split: name -> metrics.json of eval.py."""

    cfg: WeakShotConfig
    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]

    @classmethod
    def open(cls, cfg: WeakShotConfig) -> "SplitRun":
        """UserError when nothing is evaluated."""
        folder = stage_dir(cfg, "report").parent
        paths = {name: folder / f"eval_{name}" / "metrics.json" for name in METHODS}
        metrics = {name: read_json(path) for name, path in paths.items() if path.is_file()}
        if not metrics:
            raise UserError(f"{folder}: nothing evaluated to report on; run first: {EVALUATE.format(cfg.method)}")
        return cls(cfg, folder, metrics)

    @cached_property
    def colors(self) -> dict[str, str]:
        return charts.series_colors(self.metrics)

    @cached_property
    def data(self) -> WeakShotData:
        """UserError when the data set cannot be read."""
        return WeakShotData.open(self.cfg)

    @property
    def novel_numbers(self) -> set[int]:
        """Novel classes as in the masks."""
        return {self.data.groups.order[number] for number in self.data.novel}

    def stages(self, prefix: str = "") -> dict[str, Path]:
        """Folder of the training, or with `eval_` of the evaluation, of each method."""
        return {name: self.folder / f"{prefix}{name}" for name in self.metrics}


def page(cfg: WeakShotConfig) -> Page:
    """One split: methods beside each other, class by class, pictures, proposals, trainings."""
    run = SplitRun.open(cfg)
    rows = methods_table(run)
    return Page(
        title=f"Weak-shot segmentation: {Path(cfg.data.dataset).name}, {Path(cfg.split).stem}",
        lead=html.chips(f"{cfg.model.backbone}, {cfg.model.queries} proposals, {Path(cfg.split).stem}.", _novel(run)),
        sections=[headline(run, rows), classes(run), gallery(run), proposals(run), learning(run)],
        tables={"": rows},
        folder=run.folder,
    )


def _novel(run: SplitRun) -> list[str]:
    try:
        return [run.data.names[number] for number in run.data.novel]
    except UserError:
        return []


def methods_table(run: SplitRun) -> list[list[str]]:
    """A heading, a row per method."""
    shown = [c for c in COLUMNS if not c.optional or any(c.metric in metrics for metrics in run.metrics.values())]
    rows = [[name, *(percent(m.get(column.metric)) for column in shown)] for name, m in run.metrics.items()]
    return [["method", *(column.heading for column in shown)], *rows]


def headline(run: SplitRun, rows: list[list[str]]) -> str:
    """Novel mIoU of each method, and the table."""
    tiles = [(percent(m.get("novel_miou")), f"novel mIoU, {name}") for name, m in run.metrics.items()]
    intro = (
        "In per cent. Base classes have masks, novel ones tags only; retrain learns from the labels of simformer or "
        "single, supervised from the masks of all classes."
    )
    return html.tiles(tiles) + html.section("Results", intro, html.table(rows[0], [(row, "") for row in rows[1:]]))


def classes(run: SplitRun) -> str:
    """IoU of every class, novel ones first."""

    def groups() -> dict[str, list[str]]:
        names = run.data.names
        return {"novel": [names[n] for n in run.data.novel], "base": [names[n] for n in run.data.base]}

    return class_section(run.metrics, run.colors, groups)


def gallery(run: SplitRun) -> str:
    """Truth and predictions on validation images."""
    command = f"{EVALUATE.format(run.cfg.method)} save_predictions=true resume=false"
    return saved_gallery(
        run.stages("eval_"),
        command,
        "novel",
        lambda: (run.data.val_images().samples, run.data.groups.classes, run.novel_numbers),
    )


def save_proposals(propose: Callable[[torch.Tensor], Proposals], data: WeakShotData, run: Run) -> None:
    """proposals/: those of a few validation images. `propose` gives the surest ones of an image uint8 [3, H, W]:
    classes and scores [1, n], masks [1, n, h, w].
    """
    if not dist.is_main():
        return
    images, listed = data.val_images(), {}
    novel = {data.groups.order[number] for number in data.novel}
    folder = run.dir / PROPOSALS
    for number, sample in enumerate(pick_images(images.samples, novel)):
        classes, scores, masks = propose(images[images.samples.index(sample)]["image"])
        write_array(folder / f"{number}.npy", (255 * masks[0]).byte().cpu().numpy())
        listed[sample.id] = list(zip(classes[0].tolist(), scores[0].tolist(), strict=True))
    write_json(folder / "proposals.json", listed)


def proposals(run: SplitRun) -> str:
    """The surest proposals of each image, with class and score: how the network makes its answer."""
    title = "Proposals"
    folders = {name: folder / PROPOSALS for name, folder in run.stages().items()}
    found = next((item for item in folders.items() if (item[1] / "proposals.json").is_file()), None)
    if found is None:
        return html.absent(title, "No proposals are saved", f"python train_weakshot.py CONFIG method={run.cfg.method}")
    name, folder = found

    def draw() -> str:
        columns, images = [], read_json(folder / "proposals.json")
        samples = {sample.id: sample for sample in run.data.context.index(images, FIELDS)}
        for number, (image_id, listed) in enumerate(images.items()):
            image = read_image(samples[image_id].image)
            truth = label_painter(run.data.groups.classes, run.novel_numbers)(image, samples[image_id].load_label())
            masks = read_array(folder / f"{number}.npy")
            drawn = [_proposal(run, image, mask, *about) for mask, about in zip(masks, listed, strict=True)]
            columns.append([pictures.plain(image), truth, *drawn])
        rows = ["image", "ground truth", *(f"proposal {place}" for place in range(1, len(columns[0]) - 1))]
        intro = f"Of {name}: the proposals with the highest class scores, their masks, and the scores in per cent."
        return html.section(title, intro, html.gallery(columns, rows, list(images)))

    return or_reason(title, draw)


def _proposal(run: SplitRun, image: np.ndarray, mask: np.ndarray, train_id: int, score: float) -> np.ndarray:
    """An image [H, W, 3] under the mask uint8 [h, w] of a proposal."""
    number = run.data.groups.order[train_id]
    # 0 stays clear in pictures of labels: the data set's class 0 borrows the last number
    value = number or IGNORE - 1
    label = np.where(pictures.resize_image(mask, image.shape[:2]) >= SURE, value, 0).astype(np.uint8)
    names = {value: f"{run.data.names[train_id]} {100 * score:.0f}"}
    return pictures.overlay(image, label, voc_palette(), names, {value} & run.novel_numbers)


def learning(run: SplitRun) -> str:
    """Losses of every training, novel mIoU on validation images over its epochs."""
    folders = {name: folder for name, folder in run.stages().items() if folder.is_dir()}
    parts = loss_charts(folders)
    curves = score_curves(folders, "novel_miou")
    if curves:
        colors = {name: run.colors[name] for name in curves}
        drawn = charts.legend(colors) + charts.curves(curves, colors, "epoch", percent=True)
        parts.append(("novel mIoU, never used to choose an epoch", drawn))
    return html.section("Training", "Losses over steps.", html.side_by_side(parts)) if parts else ""


# ---- many splits


def _method(stage: Stage) -> str | None:
    return stage.name.removeprefix("eval_") if stage.name.startswith("eval_") else None


TABLE = ResultTable(
    columns=COLUMNS,
    main="novel",
    evaluated_by="eval.py",
    method=_method,
    split=lambda config: Path(config.get("split", "")).stem,
    heading="split, method",
    names_split=True,
    methods=METHODS,
    published=UPPER_BOUNDS,
    paper_columns=("all",),
)
