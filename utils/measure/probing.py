"""Metrics of features that were clustered or looked up: functions of confusion matrices and of counts per region.

N images, C classes, K clusters, D features.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from utils.config.common import Absent, MatchingRule
from utils.measure.matching import apply_match, match_all
from utils.measure.metrics import partition_scores, summarize

AGREEMENT = tuple(f"{score}_{when}_match" for when in ("before", "after") for score in ("nmi", "ari"))
AVERAGED = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou", *AGREEMENT)  # over seeds


def clustering_metrics(
    matrices: Mapping[int, np.ndarray],
    names: Sequence[str],
    rule: MatchingRule = "official",
    absent: Absent = "zero",
) -> dict[str, Any]:
    """Means over clusterings, and each of them under `seeds`; seed -> int64 [C, 1 + K], background the first cluster.

    `miou_std` is the sample standard deviation, `match` that of the first seed. NMI and ARI of clusters and classes are
    `nmi_before_match` and `ari_before_match`; those of clusters that took their class's name, which makes one of all
    that share a class (and of all without one), `nmi_after_match` and `ari_after_match`: the official figures.
    """
    runs = []
    for seed, matrix in matrices.items():
        match = match_all(matrix, rule)
        named = apply_match(matrix, match, 0)
        scores = summarize(named, list(names), {}, absent) | _agreement(matrix, "before") | _agreement(named, "after")
        pairs = [[cluster, int(number)] for cluster, number in enumerate(match)]
        runs.append({"seed": seed, **scores, "match": pairs})
    means = {key: _mean([run[key] for run in runs]) for key in AVERAGED}
    spread = statistics.stdev([run["miou"] for run in runs]) if len(runs) > 1 else None
    per_class = {name: _mean([run["per_class"][name] for run in runs]) for name in names}
    return {**means, "miou_std": spread, "per_class": per_class, "match": runs[0]["match"], "seeds": runs}


def retrieval_metrics(
    whole: np.ndarray,
    kept: np.ndarray | None,
    names: Sequence[str],
    ignored: Sequence[int],
    absent: Absent = "zero",
) -> dict[str, Any]:
    """Metrics of int64 [C, C] over all classes; `kept_miou` over the foreground classes that are not `ignored`.

    The second matrix comes from a memory without the ignored classes; their pixels are left out of it here.
    """
    metrics = summarize(whole, list(names), {}, absent)
    if kept is None:
        return metrics
    counted = np.array(kept)
    counted[list(ignored)] = 0
    chosen = [number for number in range(1, len(names)) if number not in ignored]
    few = summarize(counted, list(names), {"kept": chosen}, absent)
    return metrics | {
        "kept_miou": few["kept_miou"],
        "kept_per_class": {names[number]: few["per_class"][names[number]] for number in chosen},
    }


def _agreement(matrix: np.ndarray, when: str) -> dict[str, float]:
    return {f"{score}_{when}_match": value for score, value in partition_scores(matrix).items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
