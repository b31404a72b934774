"""One prototype per image, and clusters of prototypes (NCDSS, Zhao et al., CVPR 2022, sec. 3.3).

B images, D features, h w feature cells, H W pixels, N prototypes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples

from utils.errors import UserError


@dataclass(frozen=True)
class Clusters:
    ids: np.ndarray  # int [N], 0..K-1
    points: np.ndarray  # [N, d], what was clustered


LEAST_WEIGHT = 0.5  # of a pixel, which must exceed it to be of the object: of a saliency value as of a logit


def mask_prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L2-normalised sum over pixels of (bilinearly up-sampled feature * weight), of weights above 0.5 alone.

    features [B, D, h, w], weight [B, H, W] -> [B, D]; zeros where an image has no such weight. Grey saliency weighs the
    mean (NCDSS), as saliency logits do (MaskContrast); 0 and 1 make a plain mean.

    Up-sampling is linear, so its adjoint moves the weights down to the feature cells instead of D channels up to the
    pixels: the same vector for a fraction of the time and memory (benchmarks/prototypes.py).
    """
    rows = interpolation_matrix(features.shape[-2], weight.shape[-2]).to(features)
    columns = interpolation_matrix(features.shape[-1], weight.shape[-1]).to(features)
    weight = torch.where(weight > LEAST_WEIGHT, weight, 0)
    cell_weight = rows.T @ weight.to(features) @ columns  # [B, h, w]
    return F.normalize(torch.einsum("bdhw,bhw->bd", features, cell_weight), dim=1, eps=1e-12)


def interpolation_matrix(cells: int, pixels: int) -> torch.Tensor:
    """[pixels, cells]: one axis of bilinear up-sampling with align_corners=False."""
    identity = torch.eye(cells, dtype=torch.float64)[None]  # [1, cells, cells], interpolated along the last axis
    return F.interpolate(identity, size=pixels, mode="linear", align_corners=False)[0].T


def cluster_prototypes(
    prototypes: np.ndarray, k: int, *, pca_dim: int | None = 32, whiten: bool = True, seed: int, n_init: int = 10
) -> Clusters:
    """PCA (seeded, which the official code leaves out) and k-means of prototypes [N, D].

    UserError when there are fewer prototypes than clusters, or fewer prototypes or features than PCA dimensions.
    """
    kept = f"only {len(prototypes)} novel images were kept"
    if len(prototypes) < k:
        raise UserError(f"cluster.k={k}: {kept}; use fewer clusters or lower cluster.min_pixels")
    points = np.asarray(prototypes, dtype=np.float32)
    if pca_dim:
        points = make_pca(points, pca_dim, whiten, seed, "cluster", kept).fit_transform(points)
    ids = KMeans(k, random_state=seed, n_init=n_init).fit_predict(points)
    return Clusters(ids, points)


def certainty(points: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How much nearer each of points [N, D] lies to its own cluster than to the next one: its silhouette in [-1, 1].

    0 for an only member, and for all where there is one cluster, or each has one point.
    """
    if not 2 <= len(np.unique(ids)) < len(ids):
        return np.zeros(len(ids))
    return silhouette_samples(points, ids)


def make_pca(points: np.ndarray, dim: int, whiten: bool, seed: int, section: str, kept: str) -> PCA:
    """PCA that can be fitted to points [N, D]; where N or D is below `dim`, UserError with `section` and `kept`."""
    n, features = points.shape
    if n < dim:
        raise UserError(f"{section}.pca_dim={dim}: {kept}; use at most {n} dimensions")
    if features < dim:
        raise UserError(f"{section}.pca_dim={dim}: the backbone has {features} features; use at most {features}")
    return PCA(dim, whiten=whiten, random_state=seed)


@dataclass(frozen=True)
class Quantizer:
    """PCA and k-means fitted to some vectors; gives any vectors [N, D] their cluster, int [N]."""

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

    `n_init` 3 is what scikit-learn did when the paper was made. UserError when there are fewer vectors than clusters,
    or fewer vectors or features than PCA dimensions.
    """
    kept = f"only {len(vectors)} vectors to cluster"
    if len(vectors) < k:
        raise UserError(f"kmeans.clusters={k}: {kept}; use fewer clusters")
    pca = make_pca(vectors, pca_dim, whiten, seed, "kmeans", kept) if pca_dim else None
    kmeans = MiniBatchKMeans(k, batch_size=batch_size, n_init=n_init, random_state=seed)
    return Quantizer(pca, kmeans.fit(pca.fit_transform(vectors) if pca else vectors))


def purity(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Share of objects whose cluster's most frequent class is theirs; objects without a class (0) are left out."""
    known = classes > 0
    clusters, classes = clusters[known], classes[known]
    hits = sum(np.bincount(classes[clusters == cluster]).max() for cluster in np.unique(clusters))
    return float(hits / max(len(classes), 1))
