"""What the stages of a discovery chain left on disk, read back for a report."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.checkpoint import read_json
from utils.errors import UserError

STAGES = (
    *("base", "pseudo", "basic", "ranking", "eums"),
    *("eval_base", "eval_basic", "eval_eums", "eval_basic_random", "eval_basic_oracle"),
)
Curve = list[tuple[float, float]]


def finished_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """metrics.json of every finished stage; UserError when there is none."""
    paths = {stage: folder / stage / "metrics.json" for stage in STAGES}
    found = {stage: read_json(path) for stage, path in paths.items() if path.exists()}
    if not found:
        raise UserError(f"{folder}: no finished stage to report on; run first: scripts/chain.sh CONFIG")
    return found


def read_history(path: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """(losses over steps, validation scores over epochs) of history.jsonl, as lists of (x, y) by name."""
    train, val = defaultdict(list), defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut by a kill
        for name, value in entry.get("train", {}).items():
            train[name].append((entry["step"], value))
        for name, value in entry.get("val", {}).items():
            val[name].append((entry["epoch"], value))
    return dict(train), dict(val)


def cluster_order(match: Sequence[Sequence[int]], num_clusters: int) -> list[tuple[int, int]]:
    """(cluster, novel class or -1), both from 0, sorted by class; clusters without a class last."""
    classes = dict.fromkeys(range(num_clusters), -1) | {cluster: novel for cluster, novel in match}
    return sorted(classes.items(), key=lambda pair: (pair[1] < 0, pair[1], pair[0]))


def arrange_confusion(matrix: np.ndarray, num_known: int, clusters: Sequence[int]) -> np.ndarray:
    """Shares of each row of [B+1+n, B+1+K] counts, with the cluster columns in the order of `clusters` (from 0)."""
    columns = [*range(num_known), *(num_known + cluster for cluster in clusters)]
    return _shares(matrix[:, columns])


def collapse_confusion(matrix: np.ndarray, num_known: int, clusters: Sequence[int]) -> np.ndarray:
    """As arrange_confusion, with all base classes as one: [2+n, 2+K] for background, base, and the novel part."""
    starts = [0, 1, *range(num_known, matrix.shape[0])]
    merged = np.add.reduceat(matrix, starts, axis=0)
    merged = np.add.reduceat(merged, [0, 1, *range(num_known, matrix.shape[1])], axis=1)
    return arrange_confusion(merged, 2, clusters)


def majority_class(objects: Iterable[tuple[int, int]]) -> dict[int, tuple[int, float]]:
    """From (cluster, class) of every object: cluster -> (its most frequent class, the share of objects in it)."""
    members = defaultdict(Counter)
    for cluster, novel in objects:
        members[cluster][novel] += 1
    main = {cluster: min(counts, key=lambda c: (-counts[c], c)) for cluster, counts in members.items()}
    return {cluster: (main[cluster], counts[main[cluster]] / counts.total()) for cluster, counts in members.items()}


def split_point(clean: Sequence[float], unclean: Sequence[float]) -> float | None:
    """The score half-way between the last clean and the first unclean one; None unless there are both."""
    return (max(clean) + min(unclean)) / 2 if clean and unclean else None


def _shares(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(1, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
