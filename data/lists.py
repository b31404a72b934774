"""Image lists and the classes in their masks: lists of a configuration, of the data root, or shipped official ones.

The label values of each mask are kept in a table, so that only new and changed masks are read again. The table is
<output_dir>/presence.json; it identifies a mask by folder, name, size and modification time.
"""

import gzip
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data.classes import SPLITS
from data.io import read_label
from data.label_map import LabelMap
from data.layouts import Reader, Sample, ids_of_part
from data.source import DataContext
from utils import dist
from utils.checkpoint import write_text
from utils.errors import UserError
from utils.inputs import stamp
from utils.labels import IGNORE, ignore_of
from utils.log import log

Presence = list[tuple[str, frozenset[int]]]  # (image id, numbers of the classes in its mask)
SHIPPED = {"trainaug": "train", "train": "train"}  # list name -> part of the shipped tables; val_list: by the layout
TABLE, FORMAT = "presence.json", 2
Table = dict[str, dict[str, list]]  # folder -> mask -> [size, modification time, values]


def find_list(context: DataContext, name: str) -> Path | None:
    """The file of an image list in `data.lists`, else in the data root's folder of lists; None if in neither."""
    folders = [context.cfg.data.lists] if context.cfg.data.lists else []
    if any((context.root / folder).is_dir() for folder in context.layout.folders["sets"]):
        folders.append(context.layout.folder(context.root, "sets"))
    for path in (folder / f"{name}.txt" for folder in folders):
        context.files.add([path])  # a missing one, too: creating it would change the list
        if path.exists():
            return path
    return None


def image_list(context: DataContext, name: str) -> list[str]:
    """Ids of a list: from its file, the folders of a layout without list files, or the shipped official list.

    Raises UserError if there is no such list.
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
    """Ids of a list with the classes of each image, from the masks or, for an official list, from its shipped table.

    Raises UserError for a mask value that `label_map` does not allow.
    """
    if find_list(context, name) is None:
        return _shipped_part(context, name)
    return scan(context, image_list(context, name), label_map)


def scan(context: DataContext, ids: Sequence[str], label_map: LabelMap) -> Presence:
    """Ids with the values in their masks, without the ignored one.

    Raises UserError for a value that `label_map` does not allow.
    """
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
    """The official images of `train` or `val` with their classes. Raises UserError if none are shipped."""
    path = _table(dataset, part)
    if not path.is_file():
        raise UserError(f"data.dataset={dataset}: no image lists are shipped; set data.train_list and data.val_list")
    lines = (line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines())
    return [(name, frozenset(1 + int(number) for number in numbers)) for name, *numbers in lines]


def shipped_ids(dataset: str, name: str) -> list[str]:
    """Ids of data/splits/<dataset>/lists/<name>. Raises UserError if no such list is shipped."""
    path = SPLITS / dataset / "lists" / f"{name}.txt.gz"
    if not path.is_file():
        raise UserError(
            f"data.dataset={dataset}: no list '{name}' is shipped; give data.lists, or a list below data.root"
        )
    log.info("images of '%s': the official list of %s", name, dataset)
    return gzip.decompress(path.read_bytes()).decode().split()


def _table(dataset: str, part: str) -> Path:
    return SPLITS / dataset / "tasks" / f"{part}_classes.txt.gz"


def warn_of_overlap(train: Iterable[str], val: Iterable[str]) -> None:
    """Logs a warning with the number of validation images that are also trained on, which inflates scores."""
    both = sorted(set(train) & set(val))
    if both:
        log.warning("%d validation images are also trained on, such as '%s'; scores are inflated", len(both), both[0])


# ---- label values in masks


def values_in(samples: Sequence[Sample], table: Path, label_map: LabelMap) -> list[frozenset[int]]:
    """Values in each sample's mask, without the ignored one. Reads and updates `table`, a JSON file.

    Raises UserError for the first mask with a value that `label_map` does not allow.
    """
    known, unread, entries = _read_table(table), [], []
    for sample in samples:
        assert sample.label, sample
        now = list(stamp(str(sample.label)) or (0, 0))  # a missing file raises when it is read
        names = known.setdefault(str(sample.label.parent), {})
        entry = names.get(sample.label.name)
        if not entry or entry[:2] != now:
            entry = names[sample.label.name] = [*now, []]
            unread.append((sample, entry))
        entries.append(entry)
    for read in dict.fromkeys(sample.read_label for sample, _ in unread):
        group = [(sample, entry) for sample, entry in unread if sample.read_label is read]
        found = values_of([sample.label for sample, _ in group if sample.label], read)
        for (_, entry), values in zip(group, found, strict=True):
            entry[2] = sorted(values)
    require_classes(samples, (entry[2] for entry in entries), label_map)
    if unread and dist.is_main():
        _write_table(table, known)
    return [frozenset(entry[2]) for entry in entries]


def require_classes(samples: Sequence[Sample], values: Iterable[Iterable[int]], label_map: LabelMap) -> None:
    """Raises UserError for the first sample with a value that `label_map` does not allow."""
    allowed = frozenset(np.flatnonzero(label_map.table >= 0).tolist())
    for sample, found in zip(samples, values, strict=True):
        if not allowed.issuperset(found):
            label_map(np.array([list(found)], np.uint16), where=str(sample.label))


def values_of(paths: Sequence[Path], read: Reader = read_label) -> list[frozenset[int]]:
    """Values in each label file, without the ignored one."""

    def values(path: Path) -> frozenset[int]:
        return values_in_label(read(path))

    with ThreadPoolExecutor() as pool:
        found = pool.map(values, paths)
        return list(tqdm(found, total=len(paths), desc="scanning masks", leave=False, disable=None))


def values_in_label(label: np.ndarray) -> frozenset[int]:
    """Values in a label [H, W], uint8 or uint16, without the ignored one."""
    if label.dtype == np.uint8:  # 2.5 times faster than bincount, which converts to 64 bits
        counts = cv2.calcHist([label], [0], None, [IGNORE + 1], [0, IGNORE + 1]).ravel()
    else:
        counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    return frozenset(np.flatnonzero(counts[: ignore_of(label)]).tolist())


def _read_table(table: Path) -> Table:
    """The table; empty if the file is missing or unusable."""
    try:
        content = json.loads(table.read_text())
    except (OSError, ValueError):
        return {}
    return content["masks"] if isinstance(content, dict) and content.get("format") == FORMAT else {}


def _write_table(table: Path, known: Table) -> None:
    """Writes the table. A failure is only logged: the table saves time and nothing depends on it."""
    try:
        write_text(table, json.dumps({"format": FORMAT, "masks": known}))
    except OSError as error:
        log.info("%s: not written (%s); masks are read again next time", table, error.strerror)
