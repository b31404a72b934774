"""Labels by the nearest neighbour in a memory of labelled vectors (MaskContrast, Van Gansbeke et al., ICCV 2021).

N memory entries, M queries, D features, C classes, S pixels a side, h w feature cells.
"""

from collections.abc import Collection

import numpy as np
import torch

BLOCK = 1 << 26  # similarities in memory at a time


def majority_label(counts: np.ndarray, excluded: Collection[int] = (0,)) -> np.ndarray:
    """The most frequent class of each row of pixel counts [N, C], int [N]; ties go to the larger class.

    Classes in `excluded` do not count; 0 for a row without any other class.
    """
    allowed = np.array(counts)
    allowed[:, list(excluded)] = 0
    last = allowed.shape[1] - 1
    return np.where(allowed.any(1), last - allowed[:, ::-1].argmax(1), 0)


def nearest(queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Index of the memory vector [N, D] with the largest dot product, the first of equals, for queries [M, D]."""
    rows = max(1, BLOCK // len(memory))
    return torch.cat([(part @ memory.T).argmax(1) for part in queries.split(rows)])


def cell_counts(label: torch.Tensor, region: torch.Tensor, cells: tuple[int, int], num_classes: int) -> torch.Tensor:
    """Pixels of each class in each feature cell, inside a region and without ignored ones: int64 [B, h, w, C].

    label uint8 and region bool, both [B, S, S]; `cells` is (h, w).
    """
    batch, (height, width) = len(label), cells
    rows = torch.arange(label.shape[1], device=label.device) * height // label.shape[1]
    columns = torch.arange(label.shape[2], device=label.device) * width // label.shape[2]
    image = torch.arange(batch, device=label.device)[:, None, None] * height
    place = ((image + rows[:, None]) * width + columns) * num_classes + label
    counted = region & (label < num_classes)
    total = torch.bincount(place[counted], minlength=batch * height * width * num_classes)
    return total.view(batch, height, width, num_classes)


def region_confusion(counts: np.ndarray, numbers: np.ndarray, num_pred: int) -> np.ndarray:
    """Confusion matrix int64 [C, num_pred] of predictions with one number inside each image's region and 0 outside.

    counts int64 [N, C, 2]: pixels of each true class outside and inside the region; numbers int [N]. Pixels are
    counted only once, for any assignment of numbers to regions.
    """
    matrix = np.zeros((num_pred, counts.shape[1]), dtype=np.int64)
    np.add.at(matrix, numbers, counts[:, :, 1])
    matrix[0] += counts[:, :, 0].sum(0)
    return matrix.T
