"""One prototype per image, and clusters of prototypes (NCDSS, Zhao et al., CVPR 2022, sec. 3.3).

B images, D features, h w feature cells, H W pixels, N prototypes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from utils.errors import UserError


@dataclass(frozen=True)
class Clusters:
    ids: np.ndarray  # int [N], 0..K-1
    points: np.ndarray  # [N, d], what was clustered


def mask_prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L2-normalised sum over pixels of (bilinearly up-sampled feature * weight).

    features [B, D, h, w], weight [B, H, W] -> [B, D]; zeros where an image has no weight.

    Up-sampling is linear, so its adjoint moves the weights down to the feature cells instead of D channels up to the
    pixels: the same vector for a fraction of the time and memory (benchmarks/prototypes.py).
    """
    rows = interpolation_matrix(features.shape[-2], weight.shape[-2]).to(features)
    columns = interpolation_matrix(features.shape[-1], weight.shape[-1]).to(features)
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
    n, features = prototypes.shape
    kept = f"only {n} novel images were kept"
    if n < k:
        raise UserError(f"cluster.k={k}: {kept}; use fewer clusters or lower cluster.min_pixels")
    points = np.asarray(prototypes, dtype=np.float32)
    if pca_dim:
        if n < pca_dim:
            raise UserError(f"cluster.pca_dim={pca_dim}: {kept}; use at most {n} dimensions")
        if features < pca_dim:
            raise UserError(f"cluster.pca_dim={pca_dim}: the backbone has {features} features; use at most {features}")
        points = PCA(pca_dim, whiten=whiten, random_state=seed).fit_transform(points)
    ids = KMeans(k, random_state=seed, n_init=n_init).fit_predict(points)
    return Clusters(ids, points)


def purity(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Share of objects whose cluster's most frequent class is theirs; objects without a class (0) are left out."""
    known = classes > 0
    clusters, classes = clusters[known], classes[known]
    hits = sum(np.bincount(classes[clusters == cluster]).max() for cluster in np.unique(clusters))
    return float(hits / max(len(classes), 1))
