"""Export of photographs with predicted labels as a data set, in the formats of annotation tools."""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import yaml

from data.io import orientation, read_image, voc_palette, write_label, write_picture
from utils.checkpoint import read_as, write_json, write_list, write_text
from utils.errors import UserError
from utils.labels import IGNORE

Format = Literal["folder", "voc", "coco", "labelme"]
FORMATS = get_args(Format)
MARKER = "confidence.csv"  # identifies an export
STAMPS = ".export"  # size and time of all written files: an export is replaced only if nobody changed it
SPECK = 9  # smallest bounding box of a polygon, pixels
HEADING = ("image", "class", "share", "confidence", "cluster_certainty")
SOURCES = "labels.csv"
SOURCES_HEADING = ("image", "source", "confidence", "cluster_certainty")


@dataclass(frozen=True)
class LabelledImage:
    """A photograph with class numbers uint8 [H, W], 255 without class, and the network's confidence [H, W] in [0, 1].

    Label and confidence fit the photograph after EXIF rotation. `certainty` is the fit of the image's object to its
    cluster in [-1, 1]; None if it was not clustered. `source` names the origin of the label.
    """

    path: Path
    label: np.ndarray
    confidence: np.ndarray
    certainty: float | None = None
    source: str = "network"

    @property
    def id(self) -> str:
        return self.path.stem

    def found(self) -> list[tuple[int, float, float]]:
        """(class number, share of the pixels, mean confidence on them), largest first, without background."""
        rows = []
        for number in np.unique(self.label).tolist():
            if number not in (0, IGNORE):
                here = self.label == number
                rows.append((number, float(here.mean()), float(self.confidence[here].mean())))
        return sorted(rows, key=lambda row: -row[1])

    def summary(self) -> tuple[str, str, str, str]:
        """Its line of labels.csv; the confidence is the mean over pixels with a class except background."""
        here = (self.label != 0) & (self.label != IGNORE)
        mean = f"{self.confidence[here].mean():.3f}" if here.any() else ""
        return self.path.name, self.source, mean, "" if self.certainty is None else f"{self.certainty:.3f}"


Writer = Callable[[Path, LabelledImage], Any]  # writes an image's files; returns its part of a common file


def write_set(target: Path, form: Format, images: Iterable[LabelledImage], names: Sequence[str]) -> int:
    """Writes photographs, labels, classes, confidence.csv and labels.csv below `target`; returns how many photographs.

    `names` are by class number, background first. The set is written to a temporary folder and moved when complete.
    Raises UserError if `target` holds anything except an unchanged earlier export: labels may have been corrected.
    """
    target = target.resolve()
    require_untouched(target)
    new, ids, rows, parts = target.with_name(f".{target.name}.new"), [], [HEADING], []
    sources = [SOURCES_HEADING]
    shutil.rmtree(new, ignore_errors=True)
    write = _writers(names)[form]
    try:
        for image in images:
            parts.append(write(new, image))
            ids.append(image.id)
            rows += _lines(image, names)
            sources.append(image.summary())
        if not ids:
            raise UserError(f"{target}: no photograph to label")
        _write_classes(new, form, names, ids)
        if form == "coco":
            write_json(new / "annotations.json", _coco_file(parts, names))
        for name, lines in ((MARKER, rows), (SOURCES, sources)):
            with (new / name).open("w", newline="") as file:
                csv.writer(file).writerows(lines)
        write_text(new / STAMPS, json.dumps(_stamps(new)))
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return len(ids)


def require_untouched(target: Path) -> None:
    """Raises UserError unless a folder is missing, empty, or an export that nobody changed."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / MARKER).is_file():
        raise UserError(f"{target}: exists, and is no earlier export; give another folder")
    made, there = read_as(target / STAMPS, dict[str, list[int]]) if (target / STAMPS).is_file() else {}, _stamps(target)
    changed = next((name for name in sorted(made.keys() | there.keys()) if made.get(name) != there.get(name)), None)
    if changed:
        raise UserError(
            f"{target}: {changed} was changed since it was exported; give another folder, or remove this one"
        )


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Relative path -> size and modification time in ns, for every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != STAMPS)
    found = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {name: [about.st_size, about.st_mtime_ns] for name, about in found.items()}


def _lines(image: LabelledImage, names: Sequence[str]) -> list[tuple]:
    certainty = "" if image.certainty is None else f"{image.certainty:.3f}"
    found = [(names[number], f"{share:.4f}", f"{mean:.3f}") for number, share, mean in image.found()]
    return [(image.path.name, *cells, certainty) for cells in found or [("", "0", "")]]


def _write_classes(new: Path, form: Format, names: Sequence[str], ids: list[str]) -> None:
    write_list(new / "classes.txt", list(names))
    if form == "folder":
        write_text(new / "classes.yaml", yaml.safe_dump(list(names), allow_unicode=True))
        write_list(new / "sets" / "all.txt", ids)
    if form == "voc":
        colors = [f"{name}:{','.join(map(str, voc_palette()[number]))}::" for number, name in enumerate(names)]
        write_list(new / "labelmap.txt", colors)  # as CVAT reads it
        write_list(new / "ImageSets" / "Segmentation" / "train.txt", ids)


def _writers(names: Sequence[str]) -> dict[str, Writer]:
    return {"folder": _folder, "voc": _voc, "coco": _coco, "labelme": partial(_labelme, names)}


def _copy(image: LabelledImage, folder: Path) -> str:
    """Copies the photograph into a folder, with EXIF rotation applied; returns its file name."""
    folder.mkdir(parents=True, exist_ok=True)
    if orientation(image.path) == 1:
        shutil.copyfile(image.path, folder / image.path.name)
        return image.path.name
    write_picture(folder / f"{image.id}.jpg", read_image(image.path, as_shown=True))
    return f"{image.id}.jpg"


def _folder(new: Path, image: LabelledImage) -> None:
    _copy(image, new / "images")
    write_label(new / "labels" / f"{image.id}.png", image.label)


def _voc(new: Path, image: LabelledImage) -> None:
    target = new / "JPEGImages" / f"{image.id}.jpg"
    if image.path.suffix.lower() in (".jpg", ".jpeg") and orientation(image.path) == 1:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.path, target)
    else:
        write_picture(target, read_image(image.path, as_shown=True))
    write_label(new / "SegmentationClass" / f"{image.id}.png", image.label)


# ---- COCO


def _coco(new: Path, image: LabelledImage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(entry of `images`, its annotations): one per class, as the labels do not separate objects of a class."""
    name = _copy(image, new / "images")
    height, width = image.label.shape
    things = []
    for number, _, confidence in image.found():
        here = image.label == number
        rows, columns = np.nonzero(here)
        top, left = int(rows.min()), int(columns.min())
        things.append(
            {
                "category_id": number,
                "segmentation": {"size": [height, width], "counts": run_lengths(here)},
                "area": int(here.sum()),
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "iscrowd": 0,
                "score": round(confidence, 4),
            }
        )
    return {"file_name": name, "height": height, "width": width}, things


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO run lengths of bool [H, W]: column-wise, alternately outside and inside, outside first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _coco_file(parts: list[tuple[dict[str, Any], list[dict[str, Any]]]], names: Sequence[str]) -> dict[str, Any]:
    images, annotations = [], []
    for image_id, (image, things) in enumerate(parts, start=1):
        images.append({"id": image_id, **image})
        annotations += [{"image_id": image_id, **thing} for thing in things]
    numbered = [{"id": number, **thing} for number, thing in enumerate(annotations, start=1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names) if number]
    return {"images": images, "annotations": numbered, "categories": categories}


# ---- LabelMe


def _labelme(names: Sequence[str], new: Path, image: LabelledImage) -> None:
    name = _copy(image, new)
    height, width = image.label.shape
    shapes = [{"label": label, "points": points} for label, points in polygons(image.label, names)]
    about: dict[str, Any] = {"group_id": None, "shape_type": "polygon", "flags": {}}
    content = {
        "version": "5.0.1",
        "flags": {},
        "shapes": [shape | about for shape in shapes],
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    write_json(new / f"{image.id}.json", content)


def polygons(label: np.ndarray, names: Sequence[str]) -> list[tuple[str, list[list[float]]]]:
    """(class name, outline) of each connected region of a label [H, W], largest first, the order to draw them in.

    Polygons have no holes, so background inside a region is a polygon, too. Regions smaller than SPECK are left out.
    """
    called = dict(enumerate(names)) | {0: "_background_", IGNORE: "__ignore__"}
    found = []
    for number in np.unique(label).tolist():
        here = (label == number).astype(np.uint8)
        outlines, levels = cv2.findContours(here, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for outline, (*_, parent) in zip(outlines, levels[0], strict=True):
            if parent >= 0:
                continue  # a hole: its content has its own outline
            left, top, width, height = cv2.boundingRect(outline)
            at_border = min(left, top) == 0 or left + width == label.shape[1] or top + height == label.shape[0]
            if (number == 0 and at_border) or len(outline) < 3 or width * height < SPECK:
                continue
            points = (outline[:, 0].astype(float) + 0.5).tolist()  # middles of pixels
            found.append((cv2.contourArea(outline), called[number], points))
    return [(name, points) for _, name, points in sorted(found, key=lambda shape: -shape[0])]
