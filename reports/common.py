"""What pages share: the page itself, curves of trainings, bars of classes, pictures with predictions."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.io import read_image, read_label, voc_palette
from data.layouts import Sample
from utils.errors import UserError
from utils.labels import ignore_of
from utils.report import charts, html, pictures
from utils.report.results import read_history
from utils.report.tables import Rows

COLUMNS = 6  # pictures in a gallery
SEARCHED = 1000  # images looked through for those to show


@dataclass(frozen=True)
class Page:
    """What report.py writes and prints of a run."""

    title: str
    lead: str  # HTML, a line below the title
    sections: Sequence[str]  # HTML
    tables: Mapping[str, Rows]  # title -> rows, for the terminal and table.md; one table needs no title
    folder: Path  # where report.html and table.md go
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)  # tag -> uint8 [H, W, 3], for TensorBoard


# ---- trainings


def loss_charts(
    folders: Mapping[str, Path],
    colors: Mapping[str, str] | None = None,
    called: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> list[tuple[str, str]]:
    """(heading, chart) of the losses over steps of each named stage folder; their sum is left out where it has parts.

    `called` renames losses, `leave_out` names what is reported with them and is none. A chart has a legend of its own,
    unless all its losses have one of the given `colors`.
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
    """A validation score over the epochs of each named stage folder that has it."""
    found = {name: read_history(folder / "history.jsonl")[1].get(metric, []) for name, folder in folders.items()}
    return {name: points for name, points in found.items() if points}


# ---- classes


def class_bars(
    metrics: Mapping[str, Mapping[str, Any]], names: Sequence[str], colors: Mapping[str, str], mean: str
) -> str:
    """IoU of some classes, a bar per method, with the metric `mean` of each method below."""
    rows = [(name, {method: m["per_class"].get(name) for method, m in metrics.items()}) for name in names]
    rows.append(("mean", {method: m.get(mean) for method, m in metrics.items()}))
    return charts.bars(rows, colors, strong=1)


# ---- pictures


def pick_images(samples: list[Sample], wanted: Collection[int], count: int = COLUMNS) -> list[Sample]:
    """The first images of a list that show each wanted class in turn at a fair size, next to another one if possible.

    Results play no part. Without any such image, the first ones.
    """
    if not wanted:
        return samples[:count]
    rounds = -(-count // len(wanted))
    found: dict[int, list[tuple[bool, int]]] = {value: [] for value in wanted}
    for place, sample in enumerate(samples[:SEARCHED]):
        label = sample.load_label()
        ignored = ignore_of(label)
        shares = np.bincount(label.ravel(), minlength=ignored + 1)[:ignored] / label.size
        alone = not any(value and value not in wanted for value in np.flatnonzero(shares > 0.03).tolist())
        for value in wanted:
            if 0.04 < shares[value] < 0.5:
                found[value].append((alone, place))
        if all(sum(not alone for alone, _ in places) >= rounds for places in found.values()):
            break
    chosen: list[int] = []
    for _ in range(rounds):
        for places in found.values():
            rest = [place for _, place in sorted(places) if place not in chosen]
            chosen += rest[:1]
    return [samples[place] for place in chosen[:count]] or samples[:count]


def label_painter(classes: Sequence[str], strong: Collection[int]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What draws a label map in class numbers over its image; classes in `strong` stand out."""
    return partial(pictures.overlay, colors=voc_palette(), names=dict(enumerate(classes)), strong=strong)


def predicted(samples: Sequence[Sample], folders: Mapping[str, Path]) -> list[Sample]:
    """The samples that every folder holds a prediction of."""
    return [sample for sample in samples if all((folder / f"{sample.id}.png").exists() for folder in folders.values())]


def prediction_columns(
    samples: Sequence[Sample], folders: Mapping[str, Path], classes: Sequence[str], strong: Collection[int]
) -> tuple[list[list[np.ndarray]], list[str]]:
    """(columns of pictures, names of the rows): each image, its truth, and what lies in folders of predictions."""
    draw, columns = label_painter(classes, strong), []
    for sample in samples:
        image = read_image(sample.image)
        maps = [sample.load_label(), *(read_label(folder / f"{sample.id}.png") for folder in folders.values())]
        columns.append([pictures.plain(image), *(draw(image, labels) for labels in maps)])
    return columns, ["image", "ground truth", *folders]


def or_reason(title: str, make: Callable[[], str]) -> str:
    """A section that needs the data set, or why there is none: the rest of a page does without."""
    try:
        return make()
    except UserError as error:
        return html.section(title, f"Not shown, because the data set cannot be read: {error}", "")


# ---- sections of systems whose classes are of two kinds


def class_section(
    metrics: Mapping[str, Mapping[str, Any]],
    colors: Mapping[str, str],
    groups: Callable[[], Mapping[str, Sequence[str]]],
) -> str:
    """IoU of every class, a chart for each kind of class: `groups` gives the names of its classes."""
    title = "IoU of every class"

    def draw() -> str:
        parts = [
            (f"{kind} classes", class_bars(metrics, names, colors, f"{kind}_miou")) for kind, names in groups().items()
        ]
        return html.section(title, "In per cent.", charts.legend(colors) + html.side_by_side(parts))

    return or_reason(title, draw)


def saved_gallery(
    stages: Mapping[str, Path],
    command: str,
    kind: str,
    read: Callable[[], tuple[Sequence[Sample], Sequence[str], Collection[int]]],
) -> str:
    """Truth and predictions on validation images, of the evaluations whose predictions are saved; else the command that
    saves them. `read` gives the images, all class names, and the numbers of the classes of the kind that is shown.
    """
    title = "What the networks see"
    folders = {name: folder / "predictions" for name, folder in stages.items()}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        return html.absent(title, "No predictions are saved", command)

    def draw() -> str:
        samples, classes, shown = read()
        chosen = pick_images(predicted(samples, folders), shown)
        columns, rows = prediction_columns(chosen, folders, classes, shown)
        intro = f"Validation images that show the {kind} classes in turn; these have white outlines and filled tags."
        return html.section(title, intro, html.gallery(columns, rows, [sample.id for sample in chosen]))

    return or_reason(title, draw)
