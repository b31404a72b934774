"""Image lists of a class split: shipped official ones, a folder of one's own, or derived from the masks."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.class_split import SPLITS, ClassSplit, load_split
from data.io import read_label
from data.layouts import find_folder, voc_index
from utils.checkpoint import read_list, write_list
from utils.errors import UserError


@dataclass(frozen=True)
class ImageLists:
    """Image ids by role, in list order."""

    base_train: tuple[str, ...]  # at least one base class: trains the base model, novel objects as background
    base: tuple[str, ...]  # base classes only: the labelled part of fine-tuning
    novel: tuple[str, ...]  # at least one novel class: unlabelled
    base_val: tuple[str, ...]  # validates the base model
    val: tuple[str, ...]  # validates everything else


def load_lists(
    split: ClassSplit, *, dataset: str, root: Path, lists_dir: Path | None, train_list: str | None, val_list: str | None
) -> ImageLists:
    """Lists from, in this order: `lists_dir`; the masks of `train_list` in the root's sets/; the official ones."""
    if lists_dir:
        parts = {role: read_list(lists_dir / name) for role, name in official_names(split.name).items()}
        own_val = lists_dir / f"{val_list or 'val'}.txt"
        parts["val"] = read_list(own_val) if own_val.is_file() else root_list(root, val_list or "val")
    elif train_list:
        parts = _from_masks(split, root, root_list(root, train_list), root_list(root, val_list or "val"))
    else:
        shipped = SPLITS / dataset / "lists"
        files = {role: shipped / f"{name}.gz" for role, name in official_names(split.name).items()}
        if not all(path.is_file() for path in files.values()) or split != load_split(split.name, dataset):
            raise UserError(
                f"split={split.name}: no image lists are shipped for these classes; set data.train_list (a list under "
                "sets/ whose masks are scanned) or data.lists (a folder with lists of your own)"
            )
        parts = {role: gzip.decompress(path.read_bytes()).decode().split() for role, path in files.items()}
        parts["val"] = root_list(root, val_list or "val")
    novel = set(parts["novel"])
    parts["base"] = [name for name in parts["base"] if name not in novel]  # the extra fold's list holds mixed images
    return _checked(parts, split.name)


def official_names(split: str) -> dict[str, str]:
    """File name of each role in the official format."""
    return {
        "base_train": f"base_train_{split}.txt",
        "base": f"{split}_base.txt",
        "novel": f"{split}_novel.txt",
        "base_val": f"base_val_{split}.txt",
    }


def write_lists(lists: ImageLists, split: ClassSplit, folder: Path) -> None:
    """Write all roles in the official format, for `data.lists`."""
    for role, name in (official_names(split.name) | {"val": "val.txt"}).items():
        write_list(folder / name, list(getattr(lists, role)))


def root_list(root: Path, name: str) -> list[str]:
    """A list under the data root's sets/ folder."""
    return read_list(find_folder(root, "sets") / f"{name}.txt")


def presence(root: Path, ids: list[str]) -> list[frozenset[int]]:
    """Mask values that occur in each image, 255 left out."""
    samples = voc_index(root, ids, fields=("image", "label"))

    def values(sample) -> frozenset[int]:
        counts = np.bincount(read_label(sample.label).ravel(), minlength=256)
        return frozenset(np.flatnonzero(counts[:255]).tolist())

    with ThreadPoolExecutor() as pool:
        found = pool.map(values, samples)
        return list(tqdm(found, total=len(samples), desc="scanning masks", leave=False, disable=None))


def _from_masks(split: ClassSplit, root: Path, train: list[str], val: list[str]) -> dict[str, list[str]]:
    base, novel = frozenset(split.base), frozenset(split.novel)
    train_classes, val_classes = presence(root, train), presence(root, val)
    return {
        "base_train": [i for i, found in zip(train, train_classes, strict=True) if found & base],
        "base": [i for i, found in zip(train, train_classes, strict=True) if found & base and not found & novel],
        "novel": [i for i, found in zip(train, train_classes, strict=True) if found & novel],
        "base_val": [i for i, found in zip(val, val_classes, strict=True) if found & base],
        "val": val,
    }


def _checked(parts: dict[str, list[str]], split: str) -> ImageLists:
    for role in (field.name for field in fields(ImageLists)):
        names = parts[role]
        if not names:
            raise UserError(f"split={split}: the image list '{role}' is empty; no image of this data set fits it")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"split={split}: image '{twice}' is twice in the list '{role}'")
    return ImageLists(**{role: tuple(names) for role, names in parts.items()})
