"""Image lists of class discovery: base images, novel images and validation images of a class split."""

import gzip
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from data.classes import SPLITS, ClassGroups, load_split
from data.layouts import COCO, Layout
from data.lists import find_list, image_list, scan, warn_of_overlap
from data.source import DataContext
from utils.checkpoint import read_list, unique, write_list
from utils.errors import UserError
from utils.log import log

UNKNOWN_NAMES = {"base": "train", "novel": "unlabelled"}  # lists of a split with `novel: unknown`


@dataclass(frozen=True)
class ImageLists:
    """Image ids by role, in list order."""

    base_train: tuple[str, ...]  # with a base class; train the base model, with novel objects as background
    base: tuple[str, ...]  # with base classes only; the labelled images of fine-tuning
    novel: tuple[str, ...]  # with a novel class; the unlabelled images
    base_val: tuple[str, ...]  # validation of the base model
    val: tuple[str, ...]  # validation of all other models


def load_lists(split: ClassGroups, context: DataContext) -> ImageLists:
    """The lists of a split from the first of: `data.lists`; list files of the data root in the official format; with
    data.images=mixed a random draw from `data.train_list`; the masks of `data.train_list`; the shipped official lists.

    A split with `novel: unknown` reads UNKNOWN_NAMES instead. Raises UserError for a missing or empty list.
    """
    layout, d = context.layout, context.cfg.data
    if not split.groups[1]:
        return _of_unknown(split.name, context)
    names = official_names(split.name, layout)
    found = {role: find_list(context, name.removesuffix(".txt")) for role, name in names.items()}
    own = {role: path for role, path in found.items() if path}
    if d.lists:
        missing = next((name for role, name in names.items() if role not in own), None)
        if missing:
            raise UserError(f"{d.lists / missing}: no such list; data.lists needs {', '.join(names.values())}")
    if len(own) == len(names) and (d.lists or not d.train_list):
        parts = {role: _full_ids(context.read_list(path), path.name, layout) for role, path in own.items()}
        parts["val"] = image_list(context, d.val_list or layout.val_list)
        log.info("image lists of %s: %s", split.name, own["novel"].parent)
    elif d.images == "mixed":
        parts = _drawn(context)
        log.info("image lists of %s: %d labelled images drawn, %d not", split.name, *map(len, list(parts.values())[:2]))
    elif scanned := scanned_list(split, context):
        parts = _from_masks(split, context, scanned)
        log.info("image lists of %s: by the masks of '%s'", split.name, d.train_list)
    else:
        parts = _shipped(split, context)
        log.info("image lists of %s: the official ones of %s", split.name, d.dataset)
    novel = set(parts["novel"])
    base = parts.get("base", parts["base_train"])  # no official base list for COCO
    parts["base"] = [name for name in base if name not in novel]  # the official one of PASCAL fold 4 has mixed images
    return _checked(parts, split.name)


def scanned_list(split: ClassGroups, context: DataContext) -> str | None:
    """Name of the list whose masks `load_lists` scans; None if it scans no masks."""
    d = context.cfg.data
    return d.train_list if split.groups[1] and not d.lists and d.images != "mixed" else None


def _of_unknown(split: str, context: DataContext) -> ImageLists:
    """Labelled images train and validate, whatever they show; the unlabelled images are the novel ones."""
    d = context.cfg.data
    train, val = d.train_list or UNKNOWN_NAMES["base"], d.val_list or context.layout.val_list
    parts = {"base": image_list(context, train), "novel": image_list(context, UNKNOWN_NAMES["novel"])}
    both = next((name for name in parts["novel"] if name in set(parts["base"])), None)
    if both:
        raise UserError(f"split={split}: image '{both}' is in the lists '{train}' and 'unlabelled'; keep it in one")
    parts |= {"base_train": parts["base"], "val": image_list(context, val)}
    return _checked(parts | {"base_val": parts["val"]}, split)


def _drawn(context: DataContext) -> dict[str, list[str]]:
    """A random share `data.labelled` of the training list are base images, whatever they show; the rest is novel."""
    d, name = context.cfg.data, context.cfg.data.train_list or UNKNOWN_NAMES["base"]
    train, val = image_list(context, name), image_list(context, d.val_list or context.layout.val_list)
    base = [train[place] for place in draw_labelled(len(train), d.labelled, context.cfg.seed)]
    novel = [name for name in train if name not in set(base)]
    return {"base": base, "novel": novel, "base_train": base, "base_val": val, "val": val}


def draw_labelled(count: int, share: float, seed: int) -> list[int]:
    """Positions of the labelled images in a list of `count`, ascending."""
    return sorted(np.random.default_rng(seed).permutation(count)[: round(share * count)].tolist())


def _shipped(split: ClassGroups, context: DataContext) -> dict[str, list[str]]:
    layout, d = context.layout, context.cfg.data
    names = official_names(split.name, layout)
    if layout is COCO:
        names["novel_val"] = f"{split.name}_val_novel.txt"
    files = {role: SPLITS / d.dataset / "lists" / f"{name}.gz" for role, name in names.items()}
    if not all(path.is_file() for path in files.values()) or split != load_split(split.name, d.dataset):
        raise UserError(
            f"split={split.name}: no image lists are shipped for these classes; set data.train_list (a list under "
            "sets/ whose masks are scanned) or data.lists (a folder with your own lists)"
        )
    texts = {role: gzip.decompress(path.read_bytes()).decode() for role, path in files.items()}
    parts = {role: _full_ids(text.split(), names[role], layout) for role, text in texts.items()}
    novel_val, val_list = parts.pop("novel_val", []), d.val_list or layout.val_list
    if layout is COCO and find_list(context, val_list) is None:
        return parts | {"val": sorted({*parts["base_val"], *novel_val})}  # val2014.txt itself was not published
    return parts | {"val": image_list(context, val_list)}


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


def write_lists(lists: ImageLists, split: str, folder: Path, layout: Layout) -> None:
    """Writes all lists in the official format, for `data.lists`. Raises UserError if a file has other ids."""
    names = official_names(split, layout) | {"val": f"{layout.val_list}.txt"}
    for role, name in names.items():
        if (folder / name).exists() and read_list(folder / name) != list(getattr(lists, role)):
            raise UserError(f"{folder / name}: is there and holds other images (edited?); choose another folder")
    for role, name in names.items():
        write_list(folder / name, list(getattr(lists, role)))


def _full_ids(names: list[str], file: str, layout: Layout) -> list[str]:
    """Image ids of a list file; the official COCO lists have bare image numbers."""
    if layout is not COCO:
        return names
    part = "val2014" if "_val_" in file else "train2014"
    return [f"COCO_{part}_{int(name):012d}" if name.isdigit() else name for name in names]


def _from_masks(split: ClassGroups, context: DataContext, train_list: str) -> dict[str, list[str]]:
    base, novel = (split.having(group) for group in (0, 1))
    names = train_list, context.cfg.data.val_list or context.layout.val_list
    lists = [image_list(context, name) for name in names]
    train, val = (scan(context, ids, split.everything()) for ids in lists)
    return {
        "base_train": [name for name, found in train if found & base],
        "base": [name for name, found in train if found & base and not found & novel],
        "novel": [name for name, found in train if found & novel],
        "base_val": [name for name, found in val if found & base],
        "val": lists[1],
    }


def _checked(parts: dict[str, list[str]], split: str) -> ImageLists:
    for role in (field.name for field in fields(ImageLists)):
        names = parts[role]
        if not names:
            raise UserError(f"split={split}: the image list '{role}' is empty; no image of this data set fits it")
        unique(names, f"split={split}, list '{role}'")
    warn_of_overlap((*parts["base_train"], *parts["novel"]), (*parts["base_val"], *parts["val"]))
    return ImageLists(**{role: tuple(names) for role, names in parts.items()})
