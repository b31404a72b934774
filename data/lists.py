"""Image lists of a class split: shipped official ones, a folder of one's own, or derived from the masks."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.class_split import SPLITS, ClassSplit, load_split
from data.io import read_label
from data.layouts import COCO, Layout, find_layout, index_samples
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
    layout = find_layout(root)
    val_list = val_list or layout.val_list
    if lists_dir:
        names = official_names(split.name, layout)
        parts = {role: _full_ids(read_list(lists_dir / name), name, layout) for role, name in names.items()}
        own_val = lists_dir / f"{val_list}.txt"
        parts["val"] = read_list(own_val) if own_val.is_file() else root_list(root, val_list)
    elif train_list:
        parts = _from_masks(split, root, root_list(root, train_list), root_list(root, val_list))
    else:
        parts = _shipped(split, dataset, root, layout, val_list)
    novel = set(parts["novel"])
    base = parts.get("base", parts["base_train"])  # COCO has no list of its own, and that of PASCAL's extra fold
    parts["base"] = [name for name in base if name not in novel]  # holds mixed images
    return _checked(parts, split.name)


def _shipped(split: ClassSplit, dataset: str, root: Path, layout: Layout, val_list: str) -> dict[str, list[str]]:
    names = official_names(split.name, layout)
    if layout is COCO:
        names["novel_val"] = f"{split.name}_val_novel.txt"
    files = {role: SPLITS / dataset / "lists" / f"{name}.gz" for role, name in names.items()}
    if not all(path.is_file() for path in files.values()) or split != load_split(split.name, dataset):
        raise UserError(
            f"split={split.name}: no image lists are shipped for these classes; set data.train_list (a list under "
            "sets/ whose masks are scanned) or data.lists (a folder with lists of your own)"
        )
    texts = {role: gzip.decompress(path.read_bytes()).decode() for role, path in files.items()}
    parts = {role: _full_ids(text.split(), names[role], layout) for role, text in texts.items()}
    novel_val = parts.pop("novel_val", [])
    if layout is COCO and not (layout.folder(root, "sets") / f"{val_list}.txt").is_file():
        return parts | {"val": sorted({*parts["base_val"], *novel_val})}  # val2014.txt itself was not published
    return parts | {"val": root_list(root, val_list)}


def official_names(split: str, layout: Layout) -> dict[str, str]:
    """File name of each role in the official format."""
    if layout is COCO:
        return {
            "base_train": f"{split}_train_base.txt",
            "novel": f"{split}_train_novel.txt",
            "base_val": f"{split}_val_base.txt",
        }
    return {
        "base_train": f"base_train_{split}.txt",
        "base": f"{split}_base.txt",
        "novel": f"{split}_novel.txt",
        "base_val": f"base_val_{split}.txt",
    }


def write_lists(lists: ImageLists, split: ClassSplit, folder: Path, layout: Layout) -> None:
    """Write all roles in the official format, for `data.lists`."""
    for role, name in (official_names(split.name, layout) | {"val": f"{layout.val_list}.txt"}).items():
        write_list(folder / name, list(getattr(lists, role)))


def _full_ids(names: list[str], file: str, layout: Layout) -> list[str]:
    """The official COCO lists hold image numbers; their full ids say which part of the data set they are from."""
    if layout is not COCO:
        return names
    part = "val2014" if "_val_" in file else "train2014"
    return [f"COCO_{part}_{int(name):012d}" if name.isdigit() else name for name in names]


def root_list(root: Path, name: str) -> list[str]:
    """A list under the data root's sets/ folder."""
    return read_list(find_layout(root).folder(root, "sets") / f"{name}.txt")


def presence(root: Path, ids: list[str]) -> list[frozenset[int]]:
    """Mask values that occur in each image, 255 left out."""
    return values_of([sample.label for sample in index_samples(root, ids, fields=("image", "label"))])


def values_of(paths: list[Path]) -> list[frozenset[int]]:
    """Values that occur in each label file, 255 left out."""

    def values(path: Path) -> frozenset[int]:
        counts = np.bincount(read_label(path).ravel(), minlength=256)
        return frozenset(np.flatnonzero(counts[:255]).tolist())

    with ThreadPoolExecutor() as pool:
        found = pool.map(values, paths)
        return list(tqdm(found, total=len(paths), desc="scanning masks", leave=False, disable=None))


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
