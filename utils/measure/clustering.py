"""Prototypes of images or of parts of images, and clusters of prototypes (NCDSS, Zhao et al., CVPR 2022, sec. 3.3).

B images, M parts, D features, h w feature cells, H W pixels, N prototypes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples

from utils.errors import UserError
from utils.measure.semi_kmeans import semi_supervised_kmeans


@dataclass(frozen=True)
class Clusters:
    ids: np.ndarray  # int [N], 0..K-1; with known classes also -1 - i for the class at place i
    points: np.ndarray  # [N, d], the vectors that were clustered, after PCA


LEAST_WEIGHT = 0.5  # a pixel belongs to the object if its saliency value, or saliency logit, exceeds this


def mask_prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Prototype of one object per image, see `part_prototypes`: weight [B, H, W] -> [B, D]."""
    return part_prototypes(features, weight[:, None])[:, 0]


def part_prototypes(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """L2-normalised sum over pixels of bilinearly up-sampled feature * weight; weights up to 0.5 count as 0.

    features [B, D, h, w], weights [B, M, H, W] -> [B, M, D]; zeros for a part without a weight above 0.5. Grey
    saliency (NCDSS) and saliency logits (MaskContrast) weight the mean; a binary mask gives the plain mean.

    Up-sampling is linear, so its adjoint moves the weights down to the feature cells instead of D channels up to the
    pixels: the same vector for a fraction of the time and memory (benchmarks/rows/decisions.py).
    """
    rows = interpolation_matrix(features.shape[-2], weights.shape[-2]).to(features)
    columns = interpolation_matrix(features.shape[-1], weights.shape[-1]).to(features)
    weights = torch.where(weights > LEAST_WEIGHT, weights, 0)
    cell_weights = rows.T @ weights.to(features) @ columns  # [B, M, h, w]
    return F.normalize(torch.einsum("bdhw,bmhw->bmd", features, cell_weights), dim=2, eps=1e-12)


def interpolation_matrix(cells: int, pixels: int) -> torch.Tensor:
    """[pixels, cells]: one axis of bilinear up-sampling with align_corners=False."""
    identity = torch.eye(cells, dtype=torch.float64)[None]  # [1, cells, cells], interpolated along the last axis
    return F.interpolate(identity, size=pixels, mode="linear", align_corners=False)[0].T


def cluster_prototypes(
    prototypes: np.ndarray,
    k: int,
    *,
    pca_dim: int | None = 32,
    whiten: bool = True,
    seed: int,
    n_init: int = 10,
    known: Sequence[np.ndarray] | None = None,
) -> Clusters:
    """PCA (seeded, unlike the official code) and k-means of prototypes [N, D].

    With `known`, prototypes [n, D] of each known class, semi-supervised k-means clusters both together; a prototype
    assigned to the class at place i gets the id -1 - i. Raises UserError if there are fewer prototypes than clusters,
    fewer prototypes or features than PCA dimensions, or no prototype of a known class.
    """
    kept = f"only {len(prototypes)} novel objects were kept"
    if len(prototypes) < k:
        raise UserError(f"cluster.k={k}: {kept}; use fewer clusters or lower cluster.min_pixels")
    points = np.asarray(prototypes, dtype=np.float32)
    if known is not None and not all(map(len, known)):
        raise UserError("cluster.assign=semi: a base class is in no image of base classes; leave it out of the split")
    labelled = [] if known is None else [np.asarray(rows, np.float32) for rows in known]
    points = np.concatenate([*labelled, points])
    if pca_dim:
        points = make_pca(points, pca_dim, whiten, seed, "cluster", kept).fit_transform(points)
    if known is None:
        return Clusters(KMeans(k, random_state=seed, n_init=n_init).fit_predict(points), points)
    labels = np.repeat(np.arange(len(labelled)), [len(rows) for rows in labelled])
    first, points = points[: len(labels)], points[len(labels) :]
    ids = semi_supervised_kmeans(points, first, labels, k, seed=seed, n_init=n_init)
    return Clusters(np.where(ids < len(labelled), -1 - ids, ids - len(labelled)), points)


def certainty(points: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Silhouette of each of points [N, D], in [-1, 1].

    0 for the only member of a cluster; all 0 if there is one cluster, or if every cluster has one point.
    """
    if not 2 <= len(np.unique(ids)) < len(ids):
        return np.zeros(len(ids))
    return silhouette_samples(points, ids)


def make_pca(points: np.ndarray, dim: int, whiten: bool, seed: int, section: str, kept: str) -> PCA:
    """An unfitted PCA for points [N, D]. Raises UserError, with `section` and `kept`, if N or D is below `dim`."""
    n, features = points.shape
    if n < dim:
        raise UserError(f"{section}.pca_dim={dim}: {kept}; use at most {n} dimensions")
    if features < dim:
        raise UserError(f"{section}.pca_dim={dim}: the backbone has {features} features; use at most {features}")
    return PCA(dim, whiten=whiten, random_state=seed)


@dataclass(frozen=True)
class Quantizer:
    """Fitted PCA and k-means; maps vectors [N, D] to clusters, int [N]."""

    pca: PCA | None
    kmeans: MiniBatchKMeans

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return self.kmeans.predict(self.pca.transform(vectors) if self.pca else vectors)


def fit_minibatch(
    vectors: np.ndarray,
    k: int,
    *,
    pca_dim: int | None,
    whiten: bool,
    seed: int,
    n_init: int = 3,
    batch_size: int = 1000,
) -> Quantizer:
    """Whitened PCA and mini-batch k-means of vectors [N, D] (MaskContrast, Van Gansbeke et al., ICCV 2021, sec. 4.3).

    `n_init` 3 was scikit-learn's default when the paper was written. Raises UserError if there are fewer vectors than
    clusters, or fewer vectors or features than PCA dimensions.
    """
    kept = f"only {len(vectors)} vectors to cluster"
    if len(vectors) < k:
        raise UserError(f"kmeans.clusters={k}: {kept}; use fewer clusters")
    pca = make_pca(vectors, pca_dim, whiten, seed, "kmeans", kept) if pca_dim else None
    kmeans = MiniBatchKMeans(k, batch_size=batch_size, n_init=n_init, random_state=seed)
    return Quantizer(pca, kmeans.fit(pca.fit_transform(vectors) if pca else vectors))


def purity(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Share of objects that are of the majority class of their cluster; objects without a class (0) are left out."""
    known = classes != 0
    clusters, classes = clusters[known], classes[known]
    hits = sum(np.unique(classes[clusters == cluster], return_counts=True)[1].max() for cluster in np.unique(clusters))
    return float(hits / max(len(classes), 1))
