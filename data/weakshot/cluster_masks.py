"""Clusters of class discovery as masks of novel classes, named by image tags.

Class discovery gives masks without names, tags give names without masks. No published code combines the two.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.io import read_label
from data.lists import values_of
from data.pseudo_labels import clustered_labels
from utils.checkpoint import read_list
from utils.labels import IGNORE

IDS = "novel.txt"  # in a folder of cluster_pseudolabel.py
Tags = Mapping[str, frozenset[int]]  # image -> its novel classes, train ids


@dataclass(frozen=True)
class ClusterMasks:
    """A folder of cluster_pseudolabel.py: label maps with the outputs of the base model, then K clusters.

    In each image, a cluster becomes the tagged class in whose images it occurs most often.

    affinity     float [K, C]: the share of the images with class c that show cluster k
    known        uint8: train ids of the outputs of the base model, background first; 255 where that is no class
    """

    folder: Path
    ids: frozenset[str]
    affinity: np.ndarray
    known: np.ndarray

    @classmethod
    def open(cls, folder: Path, tags: Tags, known: Sequence[int], num_classes: int) -> "ClusterMasks":
        """Counts how often clusters and tags occur together. Raises UserError if the folder has no image list."""
        ids = read_list(folder / IDS)
        tagged = [name for name in ids if tags.get(name)]
        values = values_of(clustered_labels(folder).paths(tagged))
        clusters = [{value - len(known) for value in found if value >= len(known)} for found in values]
        affinity = count_together(clusters, [tags[name] for name in tagged], num_classes)
        return cls(folder, frozenset(ids), affinity, np.array(known, np.uint8))

    def label(self, image_id: str, tags: frozenset[int], shape: tuple[int, int]) -> np.ndarray:
        """Train ids uint8 [H, W]: named clusters; base classes and background as predicted by the base model.

        255 for clusters of an image without tags, and everywhere in an image that is not in the list.
        """
        if image_id not in self.ids:
            return np.full(shape, IGNORE, np.uint8)
        values = read_label(clustered_labels(self.folder).path(image_id))
        return np.concatenate([self.known, name_clusters(self.affinity, tags)])[values]


def count_together(
    clusters: Sequence[Collection[int]], tags: Sequence[Collection[int]], num_classes: int
) -> np.ndarray:
    """Share of the images with class c that show cluster k, float [K, C]; clusters, tags: one collection per image."""
    together = np.zeros((1 + max((k for found in clusters for k in found), default=-1), num_classes))
    images = np.zeros(num_classes)
    for found, own in zip(clusters, tags, strict=True):
        images[list(own)] += 1
        together[np.ix_(list(found), list(own))] += 1
    return together / images.clip(1)


def name_clusters(affinity: np.ndarray, tags: frozenset[int]) -> np.ndarray:
    """Class of each cluster in an image with these tags, uint8 [K]: the tag with the highest affinity.

    Ties go to the first tag; 255 without tags.
    """
    own = sorted(tags)
    if not own:
        return np.full(len(affinity), IGNORE, np.uint8)
    return np.array(own, np.uint8)[affinity[:, own].argmax(1)]
