"""Image lists, by one rule for every system: `data.lists`, the data root's own, a scan of masks, those that ship."""

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from data.classes import SPLITS, ClassGroups, load_split
from data.label_map import LabelMap
from data.layouts import COCO, Layout, ids_of_part
from data.presence import TABLE, values_in
from data.source import DataContext
from utils.checkpoint import read_list, unique, write_list
from utils.errors import UserError
from utils.log import log

Presence = list[tuple[str, frozenset[int]]]  # (image id, numbers of the classes in its mask)
UNKNOWN_NAMES = {"base": "train", "novel": "unlabelled"}  # lists of a split with `novel: unknown`
SHIPPED = {"trainaug": "train", "train": "train"}  # name of a list -> part of the shipped tables; val by the layout


@dataclass(frozen=True)
class ImageLists:
    """Image ids by role, in list order."""

    base_train: tuple[str, ...]  # at least one base class: trains the base model, novel objects as background
    base: tuple[str, ...]  # base classes only: the labelled part of fine-tuning
    novel: tuple[str, ...]  # at least one novel class: unlabelled
    base_val: tuple[str, ...]  # validates the base model
    val: tuple[str, ...]  # validates everything else


def find_list(context: DataContext, name: str) -> Path | None:
    """The file of an image list: in `data.lists`, else in the data root's folder of lists; None in neither."""
    folders = [context.cfg.data.lists] if context.cfg.data.lists else []
    if any((context.root / folder).is_dir() for folder in context.layout.folders["sets"]):
        folders.append(context.layout.folder(context.root, "sets"))
    for path in (folder / f"{name}.txt" for folder in folders):
        context.files.add([path])  # one that is not there would come first if it were
        if path.exists():
            return path
    return None


def image_list(context: DataContext, name: str) -> list[str]:
    """Ids of a list by its name: `data.lists`, the data root's own, its folders where the layout lists by them, or the
    official one that ships for the data set.
    """
    path = find_list(context, name)
    if path:
        log.info("images of '%s': %s", name, path)
        return context.read_list(path)
    if not context.layout.listed and name in context.layout.parts:
        log.info("images of '%s': all with a mask", name)
        return ids_of_part(context.root, context.layout, name)
    return [image_id for image_id, _ in _shipped_part(context, name)]


def presence(context: DataContext, name: str, label_map: LabelMap) -> Presence:
    """Ids of a list with the classes of each image: from a scan of the masks, or the table that ships with a list.

    UserError for a mask with a value that `label_map` does not allow.
    """
    if find_list(context, name) is None:
        return _shipped_part(context, name)
    return scan(context, image_list(context, name), label_map)


def scan(context: DataContext, ids: Sequence[str], label_map: LabelMap) -> Presence:
    """The images with the values in their masks, which must be allowed by `label_map`, without the ignored one."""
    samples = context.index(ids, ("image", "label"), whole=True)
    return list(zip(ids, values_in(samples, context.cfg.output_dir / TABLE, label_map), strict=True))


def _shipped_part(context: DataContext, name: str) -> Presence:
    part = {**SHIPPED, context.layout.val_list: "val"}.get(name)
    dataset = context.cfg.data.dataset
    if part is None or not _table(dataset, part).is_file():
        sets = context.layout.folders["sets"][0]
        raise UserError(
            f"{context.root / sets / name}.txt: no such image list, and none is shipped for data.dataset={dataset}; "
            f"write it (one image id per line), or give data.lists; expected layout: {context.layout.expected}"
        )
    log.info("images of '%s': the official list of %s", name, dataset)
    return shipped_presence(dataset, part)


def shipped_presence(dataset: str, part: str) -> Presence:
    """Classes of every official image of `train` or `val`, in official order; UserError when none are shipped."""
    path = _table(dataset, part)
    if not path.is_file():
        raise UserError(f"data.dataset={dataset}: no image lists are shipped; set data.train_list and data.val_list")
    lines = (line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines())
    return [(name, frozenset(1 + int(number) for number in numbers)) for name, *numbers in lines]


def shipped_ids(dataset: str, name: str) -> list[str]:
    """An official list that ships in data/splits/<dataset>/lists; UserError when the data set has none of that name."""
    path = SPLITS / dataset / "lists" / f"{name}.txt.gz"
    if not path.is_file():
        raise UserError(
            f"data.dataset={dataset}: no list '{name}' is shipped; give data.lists, or a list below data.root"
        )
    log.info("images of '%s': the official list of %s", name, dataset)
    return gzip.decompress(path.read_bytes()).decode().split()


def _table(dataset: str, part: str) -> Path:
    return SPLITS / dataset / "tasks" / f"{part}_classes.txt.gz"


# ---- the lists of class discovery


def load_lists(split: ClassGroups, context: DataContext) -> ImageLists:
    """Lists from, in this order: `data.lists`; the data root's own, in the official format; a draw from
    `data.train_list` with data.images=mixed; its masks; the official ones that ship. Where nobody knows the novel
    classes: UNKNOWN_NAMES.
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
    base = parts.get("base", parts["base_train"])  # COCO has no list of its own, and that of PASCAL's extra fold
    parts["base"] = [name for name in base if name not in novel]  # holds mixed images
    return _checked(parts, split.name)


def scanned_list(split: ClassGroups, context: DataContext) -> str | None:
    """Name of the list whose masks `load_lists` scans; None if it scans no masks."""
    d = context.cfg.data
    return d.train_list if split.groups[1] and not d.lists and d.images != "mixed" else None


def _of_unknown(split: str, context: DataContext) -> ImageLists:
    """Labelled images train and validate, whatever they show; those without labels are the novel ones."""
    d = context.cfg.data
    train, val = d.train_list or UNKNOWN_NAMES["base"], d.val_list or context.layout.val_list
    parts = {"base": image_list(context, train), "novel": image_list(context, UNKNOWN_NAMES["novel"])}
    both = next((name for name in parts["novel"] if name in set(parts["base"])), None)
    if both:
        raise UserError(f"split={split}: image '{both}' is in the lists '{train}' and 'unlabelled'; keep it in one")
    parts |= {"base_train": parts["base"], "val": image_list(context, val)}
    return _checked(parts | {"base_val": parts["val"]}, split)


def _drawn(context: DataContext) -> dict[str, list[str]]:
    """Base images are a share of the training list, whatever they show, and the others are the novel ones."""
    d, name = context.cfg.data, context.cfg.data.train_list or UNKNOWN_NAMES["base"]
    train, val = image_list(context, name), image_list(context, d.val_list or context.layout.val_list)
    base = [train[place] for place in draw_labelled(len(train), d.labelled, context.cfg.seed)]
    novel = [name for name in train if name not in set(base)]
    return {"base": base, "novel": novel, "base_train": base, "base_val": val, "val": val}


def draw_labelled(count: int, share: float, seed: int) -> list[int]:
    """Which of `count` images of a list have labels, ascending."""
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
            "sets/ whose masks are scanned) or data.lists (a folder with lists of your own)"
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
    """Write all roles in the official format, for `data.lists`; UserError when one is there that holds other ids."""
    names = official_names(split, layout) | {"val": f"{layout.val_list}.txt"}
    for role, name in names.items():
        if (folder / name).exists() and read_list(folder / name) != list(getattr(lists, role)):
            raise UserError(f"{folder / name}: is there and holds other images (edited?); choose another folder")
    for role, name in names.items():
        write_list(folder / name, list(getattr(lists, role)))


def _full_ids(names: list[str], file: str, layout: Layout) -> list[str]:
    """The official COCO lists hold image numbers; their full ids say which part of the data set they are from."""
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


def warn_of_overlap(train: Iterable[str], val: Iterable[str]) -> None:
    """A warning with the number of validation images that are trained on: they score too well."""
    both = sorted(set(train) & set(val))
    if both:
        log.warning("%d validation images are trained on, too, as '%s'; their scores mean little", len(both), both[0])


def _checked(parts: dict[str, list[str]], split: str) -> ImageLists:
    for role in (field.name for field in fields(ImageLists)):
        names = parts[role]
        if not names:
            raise UserError(f"split={split}: the image list '{role}' is empty; no image of this data set fits it")
        unique(names, f"split={split}, list '{role}'")
    warn_of_overlap((*parts["base_train"], *parts["novel"]), (*parts["base_val"], *parts["val"]))
    return ImageLists(**{role: tuple(names) for role, names in parts.items()})
