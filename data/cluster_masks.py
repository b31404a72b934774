"""Clusters of class discovery as masks of novel classes that image tags name.

No published code joins the two. Class discovery finds objects and groups them, without names; tags name the classes of
an image, without masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.io import read_label
from utils.checkpoint import read_list
from utils.labels import IGNORE

IDS, MAPS, LABELS = "novel.txt", "embeddings", "pseudo_labels"  # in a folder of cluster_pseudolabel.py
Tags = Mapping[str, frozenset[int]]  # image -> its novel classes, train ids


@dataclass(frozen=True)
class ClusterMasks:
    """A folder of cluster_pseudolabel.py, whose cluster k stands for the class of an image's tags that it prefers.

    affinity     float [K + 1, C]: the share of the images with class c that show cluster k; row 0 is no cluster
    known        train ids of the outputs of the base model: background, then base classes; 255 for one without
    """

    folder: Path
    ids: frozenset[str]
    affinity: np.ndarray
    known: np.ndarray

    @classmethod
    def open(cls, folder: Path, tags: Tags, known: Sequence[int], num_classes: int) -> "ClusterMasks":
        """`tags` tell of the images which clusters are of which class. UserError without the folder's list."""
        ids = read_list(folder / IDS)
        shown = {name: np.unique(read_label(folder / MAPS / f"{name}.png")) for name in ids if tags.get(name)}
        affinity = count_together(shown, tags, num_classes)
        return cls(folder, frozenset(ids), affinity, np.array(known, np.uint8))

    def label(self, image_id: str, tags: frozenset[int], shape: tuple[int, int]) -> np.ndarray:
        """Train ids uint8 [H, W]: the class of each cluster, elsewhere what the base model is sure of, or background.

        255 where a cluster has no tag to be named by, and everywhere in an image without cluster.
        """
        if image_id not in self.ids:
            return np.full(shape, IGNORE, np.uint8)
        clusters = read_label(self.folder / MAPS / f"{image_id}.png")
        labels = read_label(self.folder / LABELS / f"{image_id}.png")
        names = name_clusters(self.affinity, tags)
        base = self.known[np.where(labels < len(self.known), labels, 0)]
        return np.where(clusters > 0, names[clusters], base).astype(np.uint8)


def count_together(shown: Mapping[str, Sequence[int] | np.ndarray], tags: Tags, num_classes: int) -> np.ndarray:
    """The share of the images with class c that show cluster k, float [K + 1, C]; of images that show a cluster."""
    clusters = 1 + max((int(max(found)) for found in shown.values()), default=0)
    together, images = np.zeros((clusters, num_classes)), np.zeros(num_classes)
    for name, found in shown.items():
        own = list(tags[name])
        images[own] += 1
        together[np.ix_([k for k in found if k > 0], own)] += 1
    return together / images.clip(1)


def name_clusters(affinity: np.ndarray, tags: frozenset[int]) -> np.ndarray:
    """The class of each cluster in an image with these tags, uint8 [K + 1]: that whose images show it most often.

    The first of several; 255 without tags.
    """
    own = sorted(tags)
    if not own:
        return np.full(len(affinity), IGNORE, np.uint8)
    return np.array(own, np.uint8)[affinity[:, own].argmax(1)]
