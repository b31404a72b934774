"""Figures of features that were clustered or looked up: functions of confusion matrices and of counts per region.

N images, C classes, K clusters, D features.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from utils import checkpoint
from utils.measure.metrics import Absent, MatchingRule, apply_match, match_all, partition_scores, summarize
from utils.report import charts
from utils.report.pictures import cluster_colors

NO_CLASS = "no class"


def clustering_metrics(
    matrices: Mapping[int, np.ndarray],
    names: Sequence[str],
    rule: MatchingRule = "official",
    absent: Absent = "zero",
) -> dict[str, Any]:
    """Means over clusterings, and each of them under `seeds`; seed -> int64 [C, 1 + K], background the first cluster.

    `miou_std` is the sample standard deviation, `match` that of the first seed.
    """
    runs = []
    for seed, matrix in matrices.items():
        match = match_all(matrix, rule)
        scores = summarize(apply_match(matrix, match, 0), list(names), {}, absent)
        pairs = [[cluster, int(number)] for cluster, number in enumerate(match)]
        runs.append({"seed": seed, **scores, **partition_scores(matrix), "match": pairs})
    means = {
        key: _mean([run[key] for run in runs]) for key in ("miou", "pixel_accuracy", "mean_accuracy", "nmi", "ari")
    }
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


def draw_prototypes(path: Path, prototypes: np.ndarray, classes: np.ndarray, names: Sequence[str], seed: int) -> None:
    """SVG of the first two principal components of prototypes [N, D], and of t-SNE, coloured by class, int [N].

    Images without foreground (zero vectors) are left out.
    """
    kept = np.abs(prototypes).sum(1) > 0
    points, classes = prototypes[kept], classes[kept]
    if len(points) < 4:
        return
    colors = [_hex(color) for color in cluster_colors(len(names) - 1)]
    groups = {**dict(zip(names[1:], colors, strict=True)), NO_CLASS: "#c3cad3"}
    labels = [names[number] if number else NO_CLASS for number in classes]
    tsne = TSNE(2, perplexity=min(30, (len(points) - 1) / 3), init="pca", random_state=seed)
    panels = {"PCA": PCA(2, random_state=seed).fit_transform(points), "t-SNE": tsne.fit_transform(points)}
    checkpoint.write_text(path, charts.scatter(panels, labels, groups))


def _hex(color: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in color)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
