"""The disk layouts of data roots, VOC's, COCO's and ADE20K's: the only place that knows folder names."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from utils.errors import UserError


@dataclass(frozen=True)
class Sample:
    """Paths of one image's files; None where a stage does not read the field."""

    id: str
    image: Path
    label: Path | None = None
    saliency: Path | None = None
    pseudo: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Folder names by kind of file, the first existing one is taken; {part} is group 1 of the pattern of image ids."""

    folders: dict[str, tuple[str, ...]]
    ids: re.Pattern
    val_list: str
    expected: str
    parts: dict[str, str] = field(default_factory=dict)  # folder of a part, where it is called otherwise in ids

    def part(self, image_id: str) -> str:
        match = self.ids.fullmatch(image_id)
        if not match:
            raise UserError(f"image id '{image_id}' in a list: not one of this layout ({self.expected})")
        return self.parts.get(match[1], match[1])

    def folder(self, root: Path, kind: str, part: str = "") -> Path:
        """The folder of `kind` under a data root; UserError names what was expected."""
        names = [name.format(part=part) for name in self.folders.get(kind, (kind,))]
        for name in names:
            if (root / name).is_dir():
                return root / name
        raise UserError(f"data.root={root} has no folder '{names[0]}'; expected layout: {self.expected}")


VOC = Layout(
    folders={  # the second names are those of the VOC devkit
        "image": ("images", "JPEGImages"),
        "saliency": ("saliency_supervised_model", "saliency", "saliency_map"),
        "sets": ("sets", "ImageSets/Segmentation"),
        "SegmentationClassAug": ("SegmentationClassAug", "SegmentationClass"),
        "SegmentationClass": ("SegmentationClass", "SegmentationClassAug"),
    },
    ids=re.compile(r"()[^/]+"),
    val_list="val",
    expected="images/<id>.jpg, SegmentationClassAug/<id>.png, saliency_supervised_model/<id>.png, sets/*.txt",
)
COCO = Layout(
    folders={
        "image": ("{part}",),
        "saliency": ("saliency_supervised_model", "saliency"),
        "sets": (".",),
        "SegmentationClassAug": ("masks_{part}",),
        "SegmentationClass": ("masks_{part}",),
    },
    ids=re.compile(r"COCO_([a-z]+\d{4})_\d{12}"),
    val_list="val2014",
    expected="train2014/COCO_train2014_<12 digits>.jpg, masks_train2014/<id>.png, "
    "saliency_supervised_model/<id>.png, train2014.txt, and the same for val2014",
)


ADE = Layout(
    folders={
        "image": ("images/{part}", "images"),
        "saliency": ("saliency",),
        "sets": ("sets", "."),
        "SegmentationClassAug": ("annotations/{part}", "annotations"),
        "SegmentationClass": ("annotations/{part}", "annotations"),
    },
    ids=re.compile(r"ADE_(train|val)_\d{8}"),
    val_list="val",
    expected="images/{training,validation}/ADE_{train,val}_<8 digits>.jpg, annotations/{training,validation}/<id>.png",
    parts={"train": "training", "val": "validation"},
)


def find_layout(root: Path) -> Layout:
    """COCO's and ADE20K's by their folders, else VOC's."""
    if (root / "annotations").is_dir() and (root / "images").is_dir():
        return ADE
    return COCO if any((root / part).is_dir() for part in ("train2014", "val2014")) else VOC


def index_samples(
    root: Path,
    ids: Iterable[str],
    *,
    fields: tuple[str, ...],
    label_folder: str = "SegmentationClassAug",
    saliency_folder: str | None = None,
    pseudo_dir: Path | None = None,
    missing: Literal["error", "drop"] = "error",
) -> list[Sample]:
    """Samples with the paths of `fields` (image, label, saliency, pseudo); pseudo lies in <pseudo_dir>/pseudo_labels.

    `saliency_folder` replaces the layout's.
    A missing folder or image is a UserError; so is another missing file, unless missing="drop" leaves its image out.
    """
    layout = find_layout(root)
    folders: dict[tuple[str, str], tuple[Path, set[str]]] = {}

    def locate(field: str, part: str) -> tuple[Path, set[str]]:
        if (field, part) not in folders:
            kind = {"label": label_folder, "saliency": saliency_folder or field}.get(field, field)
            path = pseudo_dir / "pseudo_labels" if field == "pseudo" else layout.folder(root, kind, part)
            folders[field, part] = path, _names(path)
        return folders[field, part]

    samples = []
    for image_id in ids:
        part, paths, absent = layout.part(image_id), {}, []
        for kind in fields:
            folder, present = locate(kind, part)
            name = f"{image_id}.jpg" if kind == "image" else f"{image_id}.png"
            paths[kind] = folder / name
            if name not in present:
                absent.append(kind)
        if absent and (missing == "error" or "image" in absent):
            listed = f"but '{image_id}' is in the image list (layout: {layout.expected})"
            raise UserError(f"{paths[absent[0]]}: no such file, {listed}")
        if not absent:
            samples.append(Sample(image_id, **paths))
    return samples


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # one call, not a stat per file
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); expected a folder of <id>.png") from None
