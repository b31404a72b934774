"""VOC 2012 with SBD: converts the masks of both to PNG in one folder, and checks all files."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from data.label_map import LabelMap
from data.layouts import SBD, SBD_FOLDERS, VOC, index_samples
from data.lists import shipped_ids
from data.mat import read_sbd
from data.prepare.masks import check_pairs, write_masks
from utils.checkpoint import atomic, read_list
from utils.errors import UserError

VOC_FILE = (
    "VOCtrainval_11-May-2012.tar (1.9 GB, md5 6cd6e144f989b92b3379bac3b3de84fd) from "
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/"
)
SBD_FILE = (
    "benchmark.tgz (1.4 GB, md5 82b4d87ceb2ed10f6038a1cba92111cb) from "
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
)
AUG, LISTS = "SegmentationClassAug", "ImageSets/Segmentation"
CLASSES = 21
OFFICIAL = {"train": 1464, "val": 1449, "train_noval": 5623}  # images in the lists


def build_voc(root: Path, sbd: Path | None, workers: int = 2) -> Iterable[str]:
    """Writes the masks of VOC and SBD to <root>/SegmentationClassAug; VOC's mask is used if both have one.

    Yields a line per result. Existing masks are kept. Raises UserError with the download or the first faulty file.
    """
    root = _voc_root(root)
    sbd = _sbd_folder(sbd or root, root)
    masks = {path.stem for path in (root / "SegmentationClass").glob("*.png")}
    yield f"{root}: {_merge(root, sbd, masks, workers)} masks written to {AUG}, where VOC's and SBD's lie together"
    same = LabelMap.from_pairs({number: number for number in range(CLASSES)})
    for part in ("train", "val"):
        ids = read_list(root / LISTS / f"{part}.txt")
        samples = index_samples(root, ids, fields=("image", "label"), layout=VOC, label_folder="SegmentationClass")
        check_pairs(samples, same, f"VOC {part}")
        yield f"VOC {part}: {len(ids)} images, no fault{_of_official(part, len(ids))}"
    ids = _sbd_list(sbd)
    check_pairs(index_samples(sbd, ids, fields=("image", "label"), layout=SBD), same, "SBD")
    yield f"SBD train_noval: {len(ids)} images, no fault{_of_official('train_noval', len(ids))}"
    yield f"use them with data.root={root} data.sbd_root={sbd} data.use_sbd=true (zs3); others read {AUG}"


def _voc_root(root: Path) -> Path:
    """The folder with JPEGImages: `root` or, as unpacked from the archive, a folder below."""
    needed = ("JPEGImages", "SegmentationClass", LISTS)
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if all((folder / name).is_dir() for name in needed):
            return folder
    raise UserError(
        f"{root}: has no folders {', '.join(needed)}; download {VOC_FILE}, unpack it and give its folder "
        "VOCdevkit/VOC2012 with --root"
    )


def _sbd_folder(sbd: Path, root: Path) -> Path:
    if not any((sbd / folder / "cls").is_dir() for folder in SBD_FOLDERS):
        raise UserError(
            f"{sbd}: has no folder cls, dataset/cls or benchmark_RELEASE/dataset/cls; download {SBD_FILE}, unpack it "
            f"in {root}, or give its folder with --sbd"
        )
    return sbd


def _sbd_list(sbd: Path) -> list[str]:
    """Ids in train_noval.txt of the folder; by default those of the official list that have a mask."""
    own = next((path for name in SBD_FOLDERS if (path := sbd / name / "train_noval.txt").is_file()), None)
    if own:
        return read_list(own)
    masks = {path.stem for path in SBD.folder(sbd, "SegmentationClass").glob("*.mat")}
    return [name for name in shipped_ids("pascal", "sbd_train_noval") if name in masks]


def _merge(root: Path, sbd: Path, masks: set[str], workers: int) -> int:
    """Copies VOC's `masks` and converts SBD's other ones; returns the number of new files."""
    (root / AUG).mkdir(exist_ok=True)
    missing = masks - {Path(name).stem for name in os.listdir(root / AUG)}
    for name in sorted(missing):
        with atomic(root / AUG / f"{name}.png") as temporary:
            shutil.copyfile(root / "SegmentationClass" / f"{name}.png", temporary)
    files = {path.stem: path for path in sorted(SBD.folder(sbd, "SegmentationClass").glob("*.mat"))}
    others = {name: path for name, path in files.items() if name not in masks}
    return len(missing) + write_masks(root / AUG, others, read_sbd, workers, "SBD")


def _of_official(part: str, count: int) -> str:
    return "" if count == OFFICIAL[part] else f"; the official list has {OFFICIAL[part]}"
