"""The VOC disk layout: the only place that knows folder names."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.errors import UserError

LAYOUT = "images/<id>.jpg, SegmentationClassAug/<id>.png, saliency_supervised_model/<id>.png, sets/*.txt"
FOLDERS = {  # first existing one is taken; the second names are those of the VOC devkit
    "image": ("images", "JPEGImages"),
    "saliency": ("saliency_supervised_model", "saliency"),
    "sets": ("sets", "ImageSets/Segmentation"),
    "SegmentationClassAug": ("SegmentationClassAug", "SegmentationClass"),
    "SegmentationClass": ("SegmentationClass", "SegmentationClassAug"),
}


@dataclass(frozen=True)
class Sample:
    """Paths of one image's files; None where a stage does not read the field."""

    id: str
    image: Path
    label: Path | None = None
    saliency: Path | None = None
    pseudo: Path | None = None


def voc_index(
    root: Path,
    ids: Iterable[str],
    *,
    fields: tuple[str, ...],
    label_folder: str = "SegmentationClassAug",
    pseudo_dir: Path | None = None,
    missing: Literal["error", "drop"] = "error",
) -> list[Sample]:
    """Samples with the paths of `fields` (image, label, saliency, pseudo); pseudo lies in <pseudo_dir>/pseudo_labels.

    A missing folder or image is a UserError; so is another missing file, unless missing="drop" leaves its image out.
    """
    folders = {}
    for field in fields:
        if field == "pseudo":
            folders[field] = pseudo_dir / "pseudo_labels"
        else:
            folders[field] = find_folder(root, label_folder if field == "label" else field)
    present = {field: _names(folder) for field, folder in folders.items()}
    samples = []
    for name in ids:
        paths = {field: folder / f"{name}{'.jpg' if field == 'image' else '.png'}" for field, folder in folders.items()}
        absent = [field for field in fields if paths[field].name not in present[field]]
        if absent and (missing == "error" or "image" in absent):
            raise UserError(f"{paths[absent[0]]}: no such file, but '{name}' is in the image list (layout: {LAYOUT})")
        if not absent:
            samples.append(Sample(name, **paths))
    return samples


def find_folder(root: Path, kind: str) -> Path:
    """The folder of `kind` (a key of FOLDERS) under a data root; UserError names what was expected."""
    names = FOLDERS.get(kind, (kind,))
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"data.root={root} has no folder '{names[0]}'; expected layout: {LAYOUT}")


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # one call, not a stat per file
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); expected a folder of <id>.png") from None
