"""The page that report.py writes: its content, and the sections that settings share.

A section is HTML, "" if the run has nothing for it. Images are uint8 [H, W, 3], labels [H, W].
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.gallery import pick_images
from data.io import read_image, read_label, voc_palette
from data.layouts import Sample
from utils.errors import UserError
from utils.report import charts, html, pictures
from utils.report.results import read_history
from utils.report.tables import Rows


@dataclass(frozen=True)
class Page:
    """The page that report.py writes and the lines that it prints about a run."""

    title: str
    lead: str  # HTML, a line below the title
    sections: Sequence[str]  # HTML
    tables: Mapping[str, Rows]  # title -> rows, for the terminal and table.md; a single table needs no title
    folder: Path  # of report.html and table.md
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)  # tag -> image, for TensorBoard


# ---- results


def results(
    intro: str,
    tiles: Sequence[tuple[str, str]],
    rows: Rows,
    *,
    styles: Mapping[str, str] | None = None,
    bars: Sequence[charts.Row] = (),
    colors: Mapping[str, str] | None = None,
    bar_width: int = 540,
    more: tuple[str, Rows] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The first section: tiles (value, what it is), a table with bars next to it, a second table to unfold, notes.

    `rows` have the heading first; `styles` maps the name of a row to "best" or "reference"; `bars` has a bar per entry
    of `colors`; `more` is (summary, rows).
    """
    body = _table(rows, styles or {})
    if bars and colors:
        chart = charts.legend(colors) + charts.bars(bars, colors, width=bar_width)
        body = html.side_by_side([("", body), ("", chart)])
    body += html.disclosure(more[0], _table(more[1], {})) if more else ""
    body += "".join(html.note(note) for note in notes)
    return (html.tiles(tiles) if tiles else "") + html.section("Results", intro, body)


def _table(rows: Rows, styles: Mapping[str, str]) -> str:
    heading, *lines = rows
    return html.table(heading, [(line, styles.get(line[0], "")) for line in lines])


# ---- training


def loss_charts(
    folders: Mapping[str, Path],
    colors: Mapping[str, str] | None = None,
    called: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> list[tuple[str, str]]:
    """(name, chart) of the losses over steps for each stage folder, without their sum if they have several parts.

    `called` renames losses; `leave_out` names reported values that are no losses. A chart has its own legend unless
    `colors` has all of its losses.
    """
    found = []
    for name, folder in folders.items():
        train, _ = read_history(folder / "history.jsonl")
        parts = {loss: points for loss, points in train.items() if loss not in ("loss", *leave_out)} or train
        series = {(called or {}).get(loss, loss): charts.thin(points) for loss, points in parts.items()}
        own = charts.series_colors(series) | dict(colors or {})
        legend = "" if series.keys() <= (colors or {}).keys() else charts.legend({loss: own[loss] for loss in series})
        if series:
            found.append((name, legend + charts.curves(series, own, "step")))
    return found


def score_curves(folders: Mapping[str, Path], metric: str) -> dict[str, list[tuple[float, float]]]:
    """A validation score over epochs for each stage folder that has it."""
    found = {name: read_history(folder / "history.jsonl")[1].get(metric, []) for name, folder in folders.items()}
    return {name: points for name, points in found.items() if points}


def training(folders: Mapping[str, Path], intro: str, scores: tuple[str, str, Mapping[str, str]] | None = None) -> str:
    """Losses of each stage folder; with `scores` = (metric, heading, colours) this validation score of all of them."""
    parts = loss_charts(folders)
    curves = score_curves(folders, scores[0]) if scores else {}
    if scores and curves:
        colors = {name: scores[2][name] for name in curves}
        drawn = charts.legend(colors) + charts.curves(curves, colors, "epoch", percent=True)
        parts.append((scores[1], drawn))
    return html.section("Training", intro, html.side_by_side(parts)) if parts else ""


# ---- classes


def class_bars(
    metrics: Mapping[str, Mapping[str, Any]], names: Sequence[str], colors: Mapping[str, str], mean: str
) -> str:
    """IoU of the named classes, a bar per method, and the metric `mean` of each method below."""
    rows = [(name, {method: m["per_class"].get(name) for method, m in metrics.items()}) for name in names]
    rows.append(("mean", {method: m.get(mean) for method, m in metrics.items()}))
    return charts.bars(rows, colors, strong=1)


def class_scores(
    metrics: Mapping[str, Mapping[str, Any]], colors: Mapping[str, str], kinds: Mapping[str, tuple[Sequence[str], str]]
) -> str:
    """IoU of every class. `kinds`: heading of a chart -> (its classes, metric of their mean)."""
    parts = [(heading, class_bars(metrics, names, colors, mean)) for heading, (names, mean) in kinds.items()]
    return html.section("IoU of every class", "In per cent.", charts.legend(colors) + html.side_by_side(parts))


# ---- confusion of classes and clusters


def cluster_order(match: Sequence[Sequence[int]], num_clusters: int) -> list[tuple[int, int]]:
    """(cluster, matched class or -1), both from 0, sorted by class, clusters without a class last."""
    classes = dict.fromkeys(range(num_clusters), -1) | {cluster: novel for cluster, novel in match}
    return sorted(classes.items(), key=lambda pair: (pair[1] < 0, pair[1], pair[0]))


def arrange_confusion(matrix: np.ndarray, num_known: int, clusters: Sequence[int]) -> np.ndarray:
    """Row-normalised confusion of counts [C, num_known + K], the K cluster columns in the order of `clusters`."""
    counts = matrix[:, [*range(num_known), *(num_known + cluster for cluster in clusters)]]
    total = counts.sum(1, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


# ---- pictures


def label_painter(classes: Sequence[str], strong: Collection[int]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function that draws a label map in class numbers over its image; classes in `strong` stand out."""
    return partial(pictures.overlay, colors=voc_palette(), names=dict(enumerate(classes)), strong=strong)


def prediction_columns(
    samples: Sequence[Sample], folders: Mapping[str, Path], classes: Sequence[str], strong: Collection[int]
) -> tuple[list[list[np.ndarray]], list[str]]:
    """(columns, names of the rows): for each image the image, the ground truth, and the prediction in each folder."""
    draw, columns = label_painter(classes, strong), []
    for sample in samples:
        image = read_image(sample.image)
        maps = [sample.load_label(), *(read_label(folder / f"{sample.id}.png") for folder in folders.values())]
        columns.append([pictures.plain(image), *(draw(image, labels) for labels in maps)])
    return columns, ["image", "ground truth", *folders]


@dataclass(frozen=True)
class Shown:
    """The images that a gallery of predictions may show, and its classes."""

    samples: Sequence[Sample]
    classes: Sequence[str]  # by number in the masks
    strong: Collection[int]  # numbers of the classes that stand out and that images are chosen by

    def columns(self, folders: Mapping[str, Path]) -> tuple[list[list[np.ndarray]], list[str], list[str]]:
        """(columns, names of the rows, image ids) of images with a prediction in every folder."""
        there = [s for s in self.samples if all((folder / f"{s.id}.png").exists() for folder in folders.values())]
        chosen = pick_images(there, self.strong)
        return *prediction_columns(chosen, folders, self.classes, self.strong), [sample.id for sample in chosen]


PICTURES = "What the networks see"


def saved_predictions(stages: Mapping[str, Path]) -> dict[str, Path]:
    """Folder of the predictions of each evaluated stage that saved them."""
    folders = {name: folder / "predictions" for name, folder in stages.items()}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


def prediction_gallery(
    stages: Mapping[str, Path], command: str, kind: str, shown: Callable[[], Shown], note: str = ""
) -> str:
    """Ground truth and predictions of the evaluated stages that saved them; if none did, the `command` that does.

    `kind` names the classes that stand out.
    """
    folders = saved_predictions(stages)
    if not folders:
        return html.absent(PICTURES, "No predictions are saved", command)
    intro = f"Validation images that show the {kind} classes in turn; these have white outlines and filled tags."

    def draw() -> str:
        below = html.note(note) if note else ""
        return html.section(PICTURES, intro, html.gallery(*shown().columns(folders)) + below)

    return or_reason(PICTURES, draw)


def or_reason(title: str, make: Callable[[], str]) -> str:
    """A section that reads the data set; if that raises UserError, its message, so that the page is still written."""
    try:
        return make()
    except UserError as error:
        return html.section(title, f"Not shown, because the data set cannot be read: {error}", "")
