"""Semi-supervised k-means (Generalized Category Discovery, Vaze et al., CVPR 2022, sec. 3.2): known classes keep their
points; every other point goes to the nearest centre, of a known class or of a new one.

N unlabelled points, L labelled ones, C known classes, K new clusters, d dimensions.
"""

import numpy as np

MOST_STEPS = 100


def semi_supervised_kmeans(
    points: np.ndarray, known: np.ndarray, labels: np.ndarray, k: int, *, seed: int, n_init: int = 10
) -> np.ndarray:
    """Cluster of each of points [N, d], int [N]: 0..C-1 a known class, C..C+K-1 a new one.

    known [L, d] have labels 0..C-1. Their means are the first C centres; K more are drawn among the points as in
    k-means++. Of `n_init` runs, the one with the smallest sum of squared distances is returned.
    """
    count, everything = int(labels.max()) + 1, np.concatenate([known, points]).astype(np.float64)
    means = np.stack([known[labels == number].mean(0) for number in range(count)])
    best, lowest = np.zeros(len(points), np.int64), np.inf
    for start in range(n_init):
        centres = _more_centres(means, points.astype(np.float64), k, np.random.default_rng([seed, start]))
        ids, inertia = _iterate(everything, labels, centres)
        if inertia < lowest:
            best, lowest = ids[len(known) :], inertia
    return best


def _more_centres(centres: np.ndarray, points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The centres and `k` points, each drawn in proportion to its squared distance from the nearest centre."""
    nearest = _squared(points, centres).min(1)
    for _ in range(k):
        share = nearest / nearest.sum() if nearest.any() else None
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=share)]]])
        nearest = np.minimum(nearest, _squared(points, centres[-1:])[:, 0])
    return centres


def _iterate(points: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """(cluster of each point, sum of squared distances) at convergence; the first points are the labelled ones."""
    before: np.ndarray | None = None
    for _ in range(MOST_STEPS):
        squared = _squared(points, centres)
        ids = squared.argmin(1)
        ids[: len(labels)] = labels
        if before is not None and np.array_equal(ids, before):
            break
        before, sizes = ids, np.bincount(ids, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, ids, points)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)  # an empty one stays
    return ids, float(squared[np.arange(len(ids)), ids].sum())


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances [N, K]."""
    products = points @ centres.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * products + (centres**2).sum(1), 0)
