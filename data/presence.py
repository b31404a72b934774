"""Which label values occur in which mask, kept in a file: only new and changed masks are read again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.layouts import Sample
from data.lists import values_of
from utils import dist
from utils.checkpoint import write_text
from utils.log import log

FORMAT = 1


def values_in(samples: Sequence[Sample], memory: Path) -> list[frozenset[int]]:
    """Values in each sample's mask, the ignored one left out. `memory`, a JSON file, is read and brought up to date.

    A mask counts as known when its path, size and time of change are those it had.
    """
    known, found, unread = _read(memory), {}, []
    for sample in samples:
        assert sample.label, sample
        path, state = str(sample.label), sample.label.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        entry = known.get(path)
        if entry and entry[:2] == stamp:
            found[path] = entry
        else:
            unread.append(sample)
            found[path] = [*stamp, []]
    for group in _by_reader(unread):
        masks = [sample.label for sample in group if sample.label]
        for mask, values in zip(masks, values_of(masks, group[0].read_label), strict=True):
            found[str(mask)][2] = sorted(values)
    if unread and dist.rank() == 0:
        log.info("classes in %d masks read; kept in %s", len(unread), memory)
        write_text(memory, json.dumps({"format": FORMAT, "masks": known | found}))
    return [frozenset(found[str(sample.label)][2]) for sample in samples]


def _by_reader(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[Callable[[Path], np.ndarray], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.read_label, []).append(sample)
    return list(groups.values())


def _read(memory: Path) -> dict[str, list]:
    """What was kept; nothing when there is no file, or one that cannot be used."""
    try:
        content = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return content["masks"] if isinstance(content, dict) and content.get("format") == FORMAT else {}
