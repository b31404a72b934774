"""Evaluation of discovered classes: boolean masks per class, as in the released NCDSS code, and one joint histogram.

The released code keeps all novel pixels, scans them once per pair of cluster and class to match them, and then updates
an IoU meter class by class. The second forward pass over the validation set, which only this needs, is not counted.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from benchmarks.rows.row import SQUARE, Row, agree, close
from utils.labels import IGNORE
from utils.measure.confusion import image_confusion
from utils.measure.matching import apply_match, match_clusters
from utils.measure.metrics import confusion_matrix, iou

Batches = list[tuple[torch.Tensor, torch.Tensor]]
KNOWN, CLUSTERS, NOVEL = 16, 10, 5  # of PASCAL-5i with twice as many clusters as novel classes
OUTPUTS, CLASSES = KNOWN + CLUSTERS, KNOWN + NOVEL


def rows(quick: bool) -> Iterator[Row]:
    images, size = (2, 64) if quick else (20, SQUARE)
    batches = random_batches(images, 4, size)
    match = scores(batches)[0]
    yield close(
        f"IoU of {CLASSES} classes, class by class",
        lambda: iou_by_masks(batches, match),
        lambda: scores(batches)[1],
        images,
        atol=1e-9,
    )
    theirs, ours = lambda: match_by_masks(batches), lambda: scores(batches)[0]
    yield agree(f"matching of {CLUSTERS} clusters", theirs, ours, images)
    maps = [(p.byte(), t) for pred, label in batches for p, t in zip(pred, label, strict=True)]
    yield agree(
        "confusion matrix, against np.bincount",
        lambda: torch.from_numpy(sum(bincount(p.numpy(), t.numpy()) for p, t in maps)),
        lambda: sum(confusion_matrix(p, t, OUTPUTS, OUTPUTS) for p, t in maps),
        images,
    )
    native = [(p.numpy(), np.ascontiguousarray(t.numpy()[: size * 3 // 4])) for p, t in maps]
    theirs, ours = lambda: torch.from_numpy(sum(native_counts(p, t) for p, t in native)), lambda: our_counts(native)
    yield agree("scoring at the size of the file, per image", theirs, ours, images)


def random_batches(images: int, batch: int, size: int) -> Batches:
    """Pairs (prediction, label) of [b, size, size] in blocks of 8 x 8 pixels; half of them right, some ignored."""
    g = torch.Generator().manual_seed(0)
    cells = -(-size // 8)
    label = torch.randint(0, CLASSES, (images, cells, cells), generator=g)
    pred = torch.randint(0, OUTPUTS, label.shape, generator=g)
    pred = torch.where(torch.rand(label.shape, generator=g) < 0.5, label, pred)
    label[torch.rand(label.shape, generator=g) < 0.05] = IGNORE
    pred, label = (x.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :size, :size] for x in (pred, label))
    return list(zip(pred.contiguous().split(batch), label.to(torch.uint8).contiguous().split(batch), strict=True))


def scores(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """(class of each cluster, IoU of each class) from one joint histogram."""
    matrix = sum(confusion_matrix(pred, label, OUTPUTS, CLASSES) for pred, label in batches)
    match = match_clusters(matrix, KNOWN, "official")
    return torch.from_numpy(match), torch.from_numpy(iou(apply_match(matrix, match, KNOWN))).nan_to_num(0)


def match_by_masks(batches: Batches) -> torch.Tensor:
    """Class of each cluster [K]: IoU of every pair from boolean masks over all novel pixels."""
    kept = [(p >= KNOWN) & (t >= KNOWN) & (t != IGNORE) for p, t in batches]
    pred = torch.cat([p[k] for (p, _), k in zip(batches, kept, strict=True)]) - KNOWN
    label = torch.cat([t[k] for (_, t), k in zip(batches, kept, strict=True)]) - KNOWN
    overlap = torch.zeros(NOVEL, CLUSTERS, dtype=torch.float64)
    for c in range(CLUSTERS):
        for n in range(NOVEL):
            hit = ((pred == c) & (label == n)).sum().item()
            false = ((pred == c) & (label != n)).sum().item()
            missed = ((pred != c) & (label == n)).sum().item()
            overlap[n, c] = hit / max(hit + false + missed, 1e-8)
    return overlap.argmax(0)


def iou_by_masks(batches: Batches, match: torch.Tensor) -> torch.Tensor:
    """IoU of each class [C] from a meter that updates hits, false alarms and misses class by class."""
    counts = torch.zeros(3, CLASSES, dtype=torch.float64)
    table = torch.cat([torch.arange(KNOWN), KNOWN + match])
    for pred, label in batches:
        merged, valid = table[pred], label != IGNORE
        for c in range(CLASSES):
            predicted, true = merged == c, label == c
            counts[0, c] += (predicted & true & valid).sum().item()
            counts[1, c] += (predicted & ~true & valid).sum().item()
            counts[2, c] += (~predicted & true & valid).sum().item()
    return counts[0] / counts.sum(0).clamp(min=1e-8)


def bincount(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Confusion matrix of most programs: numpy's bincount over the labelled pixels."""
    inside = label < OUTPUTS
    cell = OUTPUTS * label[inside].astype(int) + pred[inside]
    return np.bincount(cell, minlength=OUTPUTS**2).reshape(OUTPUTS, OUTPUTS)


def native_counts(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Hits, false alarms and misses of each output [3, C] at the size of the label, from boolean masks."""
    pred = cv2.resize(pred, label.shape[::-1], interpolation=cv2.INTER_NEAREST)
    valid, counts = label != IGNORE, np.zeros((3, OUTPUTS), np.int64)
    for c in range(OUTPUTS):
        found, true = (pred == c) & valid, label == c
        counts[:, c] = (found & true).sum(), (found & ~true).sum(), (~found & true).sum()
    return counts


def our_counts(maps: list[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor:
    """The counts of the released code, computed from confusion matrices."""
    matrix = sum(image_confusion(t, p[None], OUTPUTS, OUTPUTS)[0] for p, t in maps)
    hit = matrix.diagonal()
    return torch.stack([hit, matrix.sum(0) - hit, matrix.sum(1) - hit])
