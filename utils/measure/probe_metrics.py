"""Metrics of the probes of contrastive features: clustering over several seeds, and retrieval.

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
    """Means over seeds, and the metrics of each seed under `seeds`.

    matrices: seed -> int64 [C, 1 + K], the first cluster is background. `miou_std` is the sample standard deviation;
    `match` is that of the first seed. `nmi_before_match`, `ari_before_match` compare clusters with classes;
    `nmi_after_match`, `ari_after_match` (official) first merge the clusters that are matched to the same class.
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
    """Metrics over all classes of `whole`, int64 [C, C], and `kept_miou` over the foreground classes not in `ignored`.

    kept: matrix of a memory without the ignored classes; the pixels of those classes are left out.
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
