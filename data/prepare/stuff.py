"""COCO-Stuff-10K and ADE20K: converts masks to PNG where necessary, and checks all files."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from data.classes import load_classes
from data.label_map import LabelMap
from data.layouts import ADE, ADE_DETECTRON2, STUFF, STUFF_DETECTRON2, find_layout, ids_of_part, index_samples
from data.lists import values_of
from data.mat import read_stuff
from data.prepare.masks import check_pairs, read_mapped, write_masks
from utils.checkpoint import read_list
from utils.errors import UserError

STUFF_FILE = (
    "cocostuff-data-v1.0.zip (2.6 GB) from http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/ "
    "(https://github.com/nightrome/cocostuff10k)"
)
ADE_FILE = "ADEChallengeData2016.zip (1 GB) from http://data.csail.mit.edu/places/ADEchallenge/"
STUFF_PARTS = {"train": 9000, "test": 1000}  # images of the official lists
ADE_PARTS = {"train": 20210, "val": 2000}


def build_cocostuff(root: Path, workers: int = 2) -> Iterable[str]:
    """Writes annotations_detectron2/{train,test}/<id>.png and links to the photographs into the downloaded folder.

    SimFormer's official code reads the same folders. Yields a line per result. Existing masks are kept. Raises
    UserError with the download, or with the first faulty file.
    """
    lists = root / "imageLists"
    if not all((root / name).is_dir() for name in ("images", "annotations", "imageLists")):
        raise UserError(f"{root}: has no folders images, annotations, imageLists; download {STUFF_FILE} and unpack it")
    same = _numbers("cocostuff10k")
    for part, official in STUFF_PARTS.items():
        ids = read_list(lists / f"{part}.txt")
        samples = index_samples(root, ids, fields=("image", "label"), layout=STUFF)
        images, masks = root / "images_detectron2" / part, root / "annotations_detectron2" / part
        _link([sample.image for sample in samples], images)
        files = {sample.label.stem: sample.label for sample in samples if sample.label}
        written = write_masks(masks, files, partial(read_mapped, read_stuff, same), workers, part)
        made = index_samples(root, ids, fields=("image", "label"), layout=STUFF_DETECTRON2)
        check_pairs(made, same, part)
        yield f"{part}: {written} masks written to {masks}; {len(ids)} images, no fault{_of(official, len(ids))}"
    yield f"use them with data.dataset=cocostuff10k data.root={root}"


def check_ade(root: Path) -> Iterable[str]:
    """Checks every image and mask of ADE20K, as published or as prepared for detectron2; yields a line per result.

    Raises UserError with the download, or with the first faulty file.
    """
    layout = find_layout(root) if root.is_dir() else None
    if layout not in (ADE, ADE_DETECTRON2):
        raise UserError(f"{root}: has no folders images and annotations; download {ADE_FILE}, unpack it and give it")
    same = _numbers("ade")
    for part, official in ADE_PARTS.items():
        ids = ids_of_part(root, layout, part)
        samples = index_samples(root, ids, fields=("image", "label"), layout=layout)
        check_pairs(samples, same, part)
        found = values_of([sample.label for sample in samples if sample.label], layout.read_label)
        void = sum(not values - {0} for values in found)
        yield f"{part}: {len(ids)} images, no fault, {void} without a class{_of(official, len(ids))}"
    yield f"use them with data.dataset=ade data.root={root}"


def _numbers(dataset: str) -> LabelMap:
    return LabelMap.from_pairs({number: number for number in range(len(load_classes(dataset).names))})


def _link(images: list[Path], folder: Path) -> None:
    """Writes relative links to photographs, so that the data root can be moved."""
    folder.mkdir(parents=True, exist_ok=True)
    there = set(os.listdir(folder))
    for image in images:
        if image.name not in there:
            (folder / image.name).symlink_to(os.path.relpath(image, folder))


def _of(official: int, count: int) -> str:
    return "" if count == official else f"; the official list has {official}"
