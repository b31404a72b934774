"""Estimates the number of clusters: the median of the numbers that three criteria prefer.

N objects, D features, K clusters.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from utils.errors import UserError

N_INIT = 4  # k-means restarts
PAIRS = 5  # pairs of random subsets, for the stability
SUBSET = 0.8  # share of the objects in a subset
PER_CLASS = 40  # labelled objects of each base class, clustered together with the unlabelled ones
Curve = dict[int, float]  # K -> score, higher is better


@dataclass(frozen=True)
class Estimate:
    """The chosen K, the K that each criterion prefers, and the scores of each criterion over K."""

    k: int
    best: dict[str, int]
    curves: dict[str, Curve]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate_k(
    objects: np.ndarray,
    base: Sequence[np.ndarray] = (),
    pca_dim: int | None = 32,
    whiten: bool = False,
    most: int = 30,
    seed: int = 0,
) -> Estimate:
    """The number of clusters of prototypes [N, D], from 2 to min(`most`, N / 3).

    base: prototypes [n, D] of each base class, for the third criterion. Raises UserError for fewer than 6 objects.
    """
    highest = min(most, len(objects) // 3)
    if highest < 2:
        raise UserError(f"cluster.k=auto: only {len(objects)} objects; give a number, or lower cluster.min_pixels")
    tried = range(2, highest + 1)
    points = _reduced(objects, pca_dim, whiten, seed)
    curves = {"silhouette": silhouette(points, tried, seed), "stability": stability(points, tried, seed)}
    known = [rows[:PER_CLASS] for rows in base if len(rows) > 1]
    if len(known) > 1:
        labels = np.repeat(np.arange(len(known)), [len(rows) for rows in known])
        together = _reduced(np.concatenate([*known, objects]), pca_dim, whiten, seed)
        curves["known classes"] = known_classes(together, labels, tried, seed)
    best = {name: max(curve, key=lambda k: (curve[k], -k)) for name, curve in curves.items()}
    return Estimate(median_low(best.values()), best, curves)


def silhouette(points: np.ndarray, tried: Sequence[int], seed: int) -> Curve:
    """Mean silhouette of k-means (Rousseeuw, 1987)."""
    return {k: float(silhouette_score(points, _kmeans(k, seed).fit_predict(points))) for k in tried}


def stability(points: np.ndarray, tried: Sequence[int], seed: int) -> Curve:
    """Mean adjusted Rand index of clusterings of two random subsets, on their common objects (Ben-Hur et al., 2002)."""
    rng, count = np.random.default_rng(seed), max(2, round(SUBSET * len(points)))
    pairs = [[np.sort(rng.permutation(len(points))[:count]) for _ in range(2)] for _ in range(PAIRS)]

    def agreement(k: int, one: np.ndarray, other: np.ndarray) -> float:
        both = np.intersect1d(one, other)
        found = [_kmeans(k, seed).fit(points[subset]).predict(points[both]) for subset in (one, other)]
        return float(adjusted_rand_score(*found))

    return {k: float(np.mean([agreement(k, *pair) for pair in pairs if k <= count])) for k in tried}


def known_classes(points: np.ndarray, labels: np.ndarray, tried: Sequence[int], seed: int) -> Curve:
    """Accuracy on the labelled points (the first ones) when all points are clustered together.

    k-means with C + K clusters, matched to the C classes one to one: too few clusters merge classes, too many split
    them (Generalized Category Discovery, Vaze et al., CVPR 2022, sec. 3.3).
    """
    classes, curve = int(labels.max()) + 1, {}
    for k in tried:
        if classes + k > len(points):
            break
        found = _kmeans(classes + k, seed).fit_predict(points)[: len(labels)]
        counts = np.zeros((classes, classes + k))
        np.add.at(counts, (labels, found), 1)
        rows, columns = linear_sum_assignment(counts, maximize=True)
        curve[k] = float(counts[rows, columns].sum() / len(labels))
    return curve


def _kmeans(k: int, seed: int) -> KMeans:
    return KMeans(k, random_state=seed, n_init=N_INIT)


def _reduced(points: np.ndarray, dim: int | None, whiten: bool, seed: int) -> np.ndarray:
    points = np.asarray(points, np.float32)
    if not dim:
        return points
    return PCA(min(dim, *points.shape), whiten=whiten, random_state=seed).fit_transform(points)
