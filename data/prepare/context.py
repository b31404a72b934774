"""Pascal-Context: converts its 459 labels to masks of 59 classes and background, and checks all files."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from data.classes import load_classes
from data.label_map import LabelMap
from data.layouts import CONTEXT, VOC, index_samples
from data.mat import read_context
from data.prepare.masks import check_pairs, read_mapped, write_masks
from data.zeroshot.context_labels import context_map
from utils.checkpoint import read_list, write_list
from utils.errors import UserError

ANNOTATIONS = "trainval.tar.gz (31 MB) and labels.txt from https://cs.stanford.edu/~roozbeh/pascal-context/"
PHOTOGRAPHS = (
    "VOCtrainval_03-May-2010.tar (1.3 GB, md5 da459979d0c395079b5c75ee67908abb) from "
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2010/"
)
COUNTS = {"train": 4998, "val": 5105}  # of the official lists
MASKS = "SegmentationClassAug"


def build_context(
    root: Path, annotations: Path, images: Path, lists: Path | None = None, workers: int = 2
) -> Iterable[str]:
    """Writes a data root in VOC's layout: masks of 60 classes, a link to the photographs, sets/train.txt and val.txt.

    Yields a line per result. Existing masks are kept. Raises UserError with the download or the first faulty file.
    """
    if (root / "full_annotations").exists():
        raise UserError(f"{root}: holds the annotations themselves, which are read as they are; choose another --root")
    labels, found = _label_folder(annotations), _lists(lists, annotations, images)
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder; download {PHOTOGRAPHS} and give its JPEGImages")
    names = load_classes("context").names
    table = context_map(labels, {name: number for number, name in enumerate(names) if number}, 0)
    masks = {path.stem for path in labels.glob("*.mat")}
    for part, ids in found.items():
        missing = [name for name in ids if name not in masks]
        if missing:
            raise UserError(
                f"{labels}: no annotation of '{missing[0]}' and {len(missing) - 1} more of the list '{part}'; "
                "Context's lists are those of VOC 2010 (ImageSets/Main), not of another year"
            )
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "JPEGImages").exists():
        (root / "JPEGImages").symlink_to(images.resolve())
    ids = [name for part in found.values() for name in part]
    files = {name: labels / f"{name}.mat" for name in ids}
    written = write_masks(root / MASKS, files, partial(read_mapped, read_context, table), workers, "masks")
    yield f"{root}: {written} masks written to {MASKS}"
    for part, listed in found.items():
        write_list(root / "sets" / f"{part}.txt", listed)
        samples = index_samples(root, listed, fields=("image", "label"), layout=VOC)
        check_pairs(samples, LabelMap.from_pairs({number: number for number in range(len(names))}), part)
        other = f"; the official list has {COUNTS[part]}" if len(listed) != COUNTS[part] else ""
        yield f"{part}: {len(listed)} images, no fault{other}"
    yield f"use them with data.dataset=context data.root={root}"


def _label_folder(annotations: Path) -> Path:
    """The folder of .mat files: `annotations` or a folder below."""
    for folder in (annotations / CONTEXT.folders["SegmentationClass"][0], annotations / "trainval", annotations):
        if folder.is_dir() and any(name.endswith(".mat") for name in os.listdir(folder)):
            return folder
    raise UserError(f"--annotations {annotations}: no folder trainval with .mat files; download {ANNOTATIONS}")


def _lists(lists: Path | None, annotations: Path, images: Path) -> dict[str, list[str]]:
    """Ids of train and val from `lists`, else next to the annotations, else from VOC next to its photographs."""
    places = [lists] if lists else [annotations, annotations.parent, images.parent / "ImageSets" / "Main"]
    for folder in places:
        if all((folder / f"{part}.txt").is_file() for part in COUNTS):
            return {part: read_list(folder / f"{part}.txt") for part in COUNTS}
    raise UserError(
        f"--lists {places[0]}: no train.txt and val.txt; give the folder VOC2010/ImageSets/Main of {PHOTOGRAPHS}"
    )
