"""Vectors drawn in two dimensions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from utils import checkpoint
from utils.report import charts
from utils.report.pictures import cluster_colors

NO_CLASS = "no class"


def draw_prototypes(path: Path, prototypes: np.ndarray, classes: np.ndarray, names: Sequence[str], seed: int) -> None:
    """Write an SVG of prototypes [N, D] in two dimensions, by PCA and by t-SNE, coloured by `classes` int [N].

    Zero vectors (images without foreground) are left out; fewer than four vectors write nothing.
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
