"""Errors of pseudo-labels against the true masks of novel images. Only studies and references use them."""

from dataclasses import dataclass

import numpy as np

from data.discovery.builder import FineTuningImages, main_class
from data.io import read_label
from utils.labels import ignore_of


@dataclass(frozen=True)
class LabelErrors:
    """Quality of the pseudo-labels of N images.

    right  bool [N], whether the class of the object is the majority class of its cluster
    iou    float [N], IoU of the cluster's region with the pixels of novel classes, 1 for equal masks
    """

    right: np.ndarray
    iou: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """1 - right * iou, float [N] from 0 (perfect label) to 1."""
        return 1 - self.right * self.iou


def label_errors(images: FineTuningImages, ids: list[str]) -> LabelErrors:
    """Compare the pseudo-labels of some novel images with their masks, at the size of the masks."""
    data, mapped = images.data, images.data.full_map()
    samples = data.context.index(ids, ("image", "label"))
    classes, ious = [], []
    for sample, path in zip(samples, data.pseudo_labels(images.pseudo_dir).paths(ids), strict=True):
        label, pseudo = mapped(sample.load_label(), where=str(sample.label)), read_label(path)
        region = (pseudo >= data.num_known) & (pseudo != ignore_of(pseudo))
        classes.append(main_class(label, region, data.num_known))
        ious.append(mask_iou(region, label >= data.num_known, label != ignore_of(label)))
    clusters = np.array(images.clusters(ids))
    return LabelErrors(majority(clusters, np.array(classes)), np.array(ious))


def mask_iou(found: np.ndarray, true: np.ndarray, valid: np.ndarray) -> float:
    """Intersection over union of two masks on the valid pixels; 0 if both are empty. bool [H, W]."""
    return float((found & true & valid).sum() / max(1, ((found | true) & valid).sum()))


def majority(clusters: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether each object has the most frequent class of its cluster, bool [N]; false for class 0. Both int [N]."""
    right = np.zeros(len(classes), bool)
    for cluster in np.unique(clusters):
        inside = (clusters == cluster) & (classes > 0)
        if inside.any():
            right |= inside & (classes == np.bincount(classes[inside]).argmax())
    return right
