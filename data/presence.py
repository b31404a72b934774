"""Which label values occur in which mask, kept in a table: only new and changed masks are read again.

The table lies beside the runs, <output_dir>/presence.json, by folder and name of a mask, its size and time of change.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data.io import read_label
from data.label_map import LabelMap
from data.layouts import Sample
from utils import dist
from utils.checkpoint import write_text
from utils.inputs import stamp
from utils.labels import IGNORE, ignore_of
from utils.log import log

TABLE, FORMAT = "presence.json", 2
Reader = Callable[[Path], np.ndarray]
Table = dict[str, dict[str, list]]  # folder -> mask -> [size, time of change, values]


def values_in(samples: Sequence[Sample], table: Path, label_map: LabelMap) -> list[frozenset[int]]:
    """Values in each sample's mask, the ignored one left out. `table`, a JSON file, is read and brought up to date.

    A mask counts as known when its folder, name, size and time of change are those it had. UserError for the first
    mask with a value that `label_map` does not allow, known or not.
    """
    known, unread, entries = _read(table), [], []
    for sample in samples:
        assert sample.label, sample
        now = list(stamp(str(sample.label)) or (0, 0))  # reading it tells what is wrong
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
        _write(table, known)
    return [frozenset(entry[2]) for entry in entries]


def require_classes(samples: Sequence[Sample], values: Iterable[Iterable[int]], label_map: LabelMap) -> None:
    """UserError for the first sample with a value that is no class."""
    allowed = frozenset(np.flatnonzero(label_map.table >= 0).tolist())
    for sample, found in zip(samples, values, strict=True):
        if not allowed.issuperset(found):
            label_map(np.array([list(found)], np.uint16), where=str(sample.label))


def values_of(paths: Sequence[Path], read: Reader = read_label) -> list[frozenset[int]]:
    """Values that occur in each label file, the ignored one left out."""

    def values(path: Path) -> frozenset[int]:
        return values_in_label(read(path))

    with ThreadPoolExecutor() as pool:
        found = pool.map(values, paths)
        return list(tqdm(found, total=len(paths), desc="scanning masks", leave=False, disable=None))


def values_in_label(label: np.ndarray) -> frozenset[int]:
    """Values that occur in a label [H, W] of uint8 or uint16, the ignored one left out."""
    if label.dtype == np.uint8:  # in 0.4 of the time of bincount, which first widens the pixels to 64 bits
        counts = cv2.calcHist([label], [0], None, [IGNORE + 1], [0, IGNORE + 1]).ravel()
    else:
        counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    return frozenset(np.flatnonzero(counts[: ignore_of(label)]).tolist())


def _read(table: Path) -> Table:
    """What was kept; nothing when there is no file, or one that cannot be used."""
    try:
        content = json.loads(table.read_text())
    except (OSError, ValueError):
        return {}
    return content["masks"] if isinstance(content, dict) and content.get("format") == FORMAT else {}


def _write(table: Path, known: Table) -> None:
    """The table may be lost, as it saves time only; the run itself says when its folder cannot be written."""
    try:
        write_text(table, json.dumps({"format": FORMAT, "masks": known}))
    except OSError as error:
        log.info("%s: not written (%s); masks are read again next time", table, error.strerror)
