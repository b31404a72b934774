"""Metrics of one confusion matrix, int64 [true classes, predicted classes].

In class discovery, with B base and n novel classes and K clusters, the matrix is [B+1+n, B+1+K]: its first
B+1 = `num_known` rows and columns are background and base, the rest are novel classes (rows) and clusters (columns).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from utils.config.common import Absent
from utils.labels import IGNORE, ignore_of

LEVELS = 256  # values of a uint8 array
EXACT = 2**24  # largest exact count of OpenCV, which counts in float32


def confusion_matrix(
    pred: torch.Tensor, label: torch.Tensor, num_pred: int, num_true: int, later: int | None = None
) -> torch.Tensor:
    """Joint histogram of label and prediction over the labelled pixels, on their device, int64 [num_true, num_pred].

    pred and label hold integers of the same shape. Labels from num_true on count as class `later`, or are
    ignored if that is the ignored value. Without `later`, raises RuntimeError (on a GPU: a device assertion).
    """
    if label.device.type == "cpu" and label.dtype == torch.uint8 and num_true <= IGNORE and num_pred <= LEVELS:
        return _histogram(pred.to(torch.uint8).numpy(), label.numpy(), num_pred, num_true, later)
    if later is not None:
        label = torch.where((label >= num_true) & (label != ignore_of(label)), later, label)
    if label.device.type != "cpu":
        return confusion_of_step(pred, label, num_pred, num_true)
    cell = _cells(pred, label, num_pred)
    return torch.bincount(cell, minlength=num_true * num_pred + 1)[1:].view(num_true, num_pred)


def confusion_of_step(pred: torch.Tensor, label: torch.Tensor, num_pred: int, num_true: int) -> torch.Tensor:
    """`confusion_matrix` without bincount, which synchronises with the device: for training steps, and on GPUs."""
    cell = _cells(pred, label, num_pred)
    counts = torch.zeros(num_true * num_pred + 1, dtype=torch.int64, device=cell.device)
    return counts.scatter_add_(0, cell, torch.ones_like(cell))[1:].view(num_true, num_pred)


def _cells(pred: torch.Tensor, label: torch.Tensor, num_pred: int) -> torch.Tensor:
    """The bin of each pixel, row by row from 1 on."""
    pred, label = pred.reshape(-1).long(), label.reshape(-1).long()
    # ignored pixels go to bin 0, which is cut off: faster than selecting the others, and wrong labels stay visible
    return torch.where(label == ignore_of(label), 0, label * num_pred + pred + 1)


def _histogram(pred: np.ndarray, label: np.ndarray, num_pred: int, num_true: int, later: int | None) -> torch.Tensor:
    """`confusion_matrix` of uint8 arrays by OpenCV, many times faster than bincount because it needs no conversion."""
    counts = np.zeros((LEVELS, num_pred), np.int64)
    pred, label = pred.reshape(1, -1), label.reshape(1, -1)
    for start in range(0, label.size, EXACT):
        part = [label[:, start : start + EXACT], pred[:, start : start + EXACT]]
        found = cv2.calcHist(part, [0, 1], None, [LEVELS, num_pred], [0, LEVELS, 0, num_pred])
        counts += found.astype(np.int64)
    if counts.sum() < label.size:
        raise RuntimeError(f"a prediction is none of {num_pred} outputs")
    matrix, others = counts[:num_true], counts[num_true:IGNORE]
    if later is None and others.any():
        raise RuntimeError(f"label {num_true + int(others.any(1).argmax())} is none of {num_true} classes")
    if later is not None and later < num_true:
        matrix[later] += others.sum(0)
    return torch.from_numpy(matrix)


def iou(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class of a matrix [N, N] or [N, N + extra]; NaN for a class in neither truth nor prediction."""
    confusion = np.asarray(confusion, dtype=np.float64)
    n = len(confusion)
    hit = np.diag(confusion[:, :n])
    union = confusion.sum(1) + confusion.sum(0)[:n] - hit
    with np.errstate(invalid="ignore"):
        return hit / union


def partition_scores(confusion: torch.Tensor | np.ndarray) -> dict[str, float]:
    """Agreement of clusters and classes: `nmi` (arithmetic mean) and `ari` of [C, K] counts.

    1 for identical partitions; ari is about 0 for random ones.
    """
    counts = as_array(confusion).astype(np.float64)
    total = counts.sum()
    if not total:
        return {"nmi": 0.0, "ari": 0.0}
    joint, rows, columns = counts / total, counts.sum(1) / total, counts.sum(0) / total

    def entropy(share: np.ndarray) -> float:
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())

    mutual = entropy(rows) + entropy(columns) - entropy(joint)
    spread = (entropy(rows) + entropy(columns)) / 2
    pairs, row_pairs, column_pairs, all_pairs = (
        float((n * (n - 1) / 2).sum()) for n in (counts, counts.sum(1), counts.sum(0), total)
    )
    chance, best = row_pairs * column_pairs / max(all_pairs, 1), (row_pairs + column_pairs) / 2
    ari = (pairs - chance) / (best - chance) if best > chance else 1.0
    return {"nmi": mutual / spread if spread > 0 else 1.0, "ari": ari}


def summarize(
    confusion: torch.Tensor | np.ndarray,
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    absent: Absent = "zero",
) -> dict[str, Any]:
    """miou, pixel_accuracy, mean_accuracy, fw_iou, per_class; of groups of class numbers `<group>_miou`,
    `<group>_accuracy`, `<group>_pixel_accuracy`.

    Fractions; accuracies but those of pixels are means of hit / labelled over classes, `fw_iou` is the IoU weighted by
    labelled pixels; two groups have a harmonic_miou. A class without a pixel in truth and prediction has IoU None in
    `per_class`, one without a labelled pixel has no accuracy; in a mean these count as 0 (absent="zero", the convention
    of most official programs) or not at all ("skip"). SimFormer's ("labelled") is to skip them, and in means of groups
    also classes that are predicted, but nowhere labelled. An empty mean is None, and so is everything when no pixel is
    labelled.
    """
    confusion = as_array(confusion)
    scores, labelled = iou(confusion), confusion.sum(1)
    hit, total = np.diag(confusion[:, : len(confusion)]), labelled.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracies = hit / labelled

    def mean(values: np.ndarray, rows: Sequence[int]) -> float | None:
        chosen = values[list(rows)]
        chosen = np.nan_to_num(chosen, nan=0.0) if absent == "zero" else chosen[~np.isnan(chosen)]
        return float(chosen.mean()) if len(chosen) else None

    def share(rows: Sequence[int]) -> float | None:
        return float(hit[rows].sum() / labelled[rows].sum()) if labelled[rows].any() else None

    def counted(rows: Sequence[int]) -> list[int]:
        return [row for row in rows if labelled[row] or absent != "labelled"]

    everything = list(range(len(names)))
    result: dict[str, Any] = {
        "miou": mean(scores, everything),
        "pixel_accuracy": share(everything),
        "mean_accuracy": mean(accuracies, everything) if total else None,
        "fw_iou": float((labelled * np.nan_to_num(scores, nan=0.0)).sum() / total) if total else None,
        **{f"{group}_miou": mean(scores, counted(index)) for group, index in groups.items()},
        **{f"{group}_accuracy": mean(accuracies, index) if total else None for group, index in groups.items()},
        **{f"{group}_pixel_accuracy": share(list(index)) for group, index in groups.items()},
        "per_class": {name: None if np.isnan(s) else float(s) for name, s in zip(names, scores, strict=True)},
    }
    if len(groups) == 2:
        first, second = (result[f"{group}_miou"] for group in groups)
        undefined = first is None or second is None
        result["harmonic_miou"] = None if undefined else 2 * first * second / max(first + second, 1e-12)
    return result


def as_array(confusion: torch.Tensor | np.ndarray) -> np.ndarray:
    """Counts as a NumPy array; tensors may be on any device."""
    return confusion.cpu().numpy() if torch.is_tensor(confusion) else np.asarray(confusion)
