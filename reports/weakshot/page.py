"""Weak-shot segmentation: the page of a split."""

from collections.abc import Sequence

import numpy as np

from data.io import read_image, voc_palette
from data.layouts import Sample
from data.weakshot.builder import FIELDS, WeakShotData
from data.weakshot.shown_masks import Scored, read_proposals
from reports.methods_page import MethodsPage, MethodsRun, classes, gallery, learning, scores
from reports.page import label_painter, or_reason
from reports.weakshot.table import TABLE
from utils.labels import IGNORE
from utils.report import html, pictures

SURE = 128  # of 255: mask value from which a pixel is drawn as part of a proposal


def proposals(run: MethodsRun) -> str:
    """The proposals of the first method that has some: masks with the highest class scores."""
    title = "Proposals"
    found = {name: masks for name, folder in run.trainings.items() if (masks := read_proposals(folder)) is not None}
    if not found:
        return html.absent(title, "No proposals are saved", f"python train_weakshot.py CONFIG method={run.cfg.method}")
    name, images = next(iter(found.items()))

    def draw() -> str:
        samples, columns = {s.id: s for s in run.data.context.index(images, FIELDS)}, []
        paint = label_painter(run.data.groups.classes, run.held_out_numbers)
        for image_id, (masks, scored) in images.items():
            image = read_image(samples[image_id].image)
            drawn = _overlays(run, image, masks, scored)
            columns.append([pictures.plain(image), paint(image, samples[image_id].load_label()), *drawn])
        rows = ["image", "ground truth", *(f"proposal {place}" for place in range(1, len(columns[0]) - 1))]
        intro = f"{name}: the proposals with the highest class scores, their masks, and the scores in per cent."
        return html.section(title, intro, html.gallery(columns, rows, list(images)))

    return or_reason(title, draw)


def _overlays(run: MethodsRun, image: np.ndarray, masks: np.ndarray, scored: Scored) -> list[np.ndarray]:
    """An image [H, W, 3] under each mask uint8 [n, h, w], with class and score of the proposal."""
    drawn = []
    for mask, (train_id, score) in zip(masks, scored, strict=True):
        number = run.data.groups.order[train_id]
        value = number or IGNORE - 1  # 0 is not painted, so the data set's class 0 takes the last number
        label = np.where(pictures.resize_image(mask, image.shape[:2]) >= SURE, value, 0).astype(np.uint8)
        names = {value: f"{run.data.names[train_id]} {100 * score:.0f}"}
        drawn.append(pictures.overlay(image, label, voc_palette(), names, {value} & run.held_out_numbers))
    return drawn


def val_images(data: WeakShotData) -> Sequence[Sample]:
    return data.val_images().samples


page = MethodsPage(
    title="Weak-shot segmentation",
    table=TABLE,
    open_data=WeakShotData.open,
    images=val_images,
    kinds=("novel", "base"),
    tile=TABLE.main,
    about=lambda cfg: f"{cfg.model.backbone}, {cfg.model.queries} proposals, {cfg.folder}.",
    intro="In per cent. Base classes have masks, novel classes only image tags. retrain learns from the pseudo-labels "
    "of simformer or single, supervised from the masks of all classes.",
    evaluate="python eval.py CONFIG method={}",
    predict="save_predictions=true",
    sections=(scores, classes, gallery, proposals, learning),
).page
