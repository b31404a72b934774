"""Classes and cells of label maps at feature resolution, for step 2 of ZS3Net; computed on the host.

B images, h w feature cells.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from utils.labels import IGNORE


@dataclass(frozen=True)
class ClassCells:
    """The classes of one image in ascending order, and the cells of each as raster indices; 255 is left out."""

    classes: list[int]
    cells: list[np.ndarray]
    has_unseen: bool


def shrink_label(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """uint8 [B, H, W] -> [B, h, w]; a cell has the label of pixel floor(i H / h), as in the official code."""
    return F.interpolate(label[:, None], size=tuple(size), mode="nearest")[:, 0]


def class_cells(label: np.ndarray, unseen: Collection[int]) -> list[ClassCells]:
    """The classes and cells of each of the label maps [B, h, w], uint8.

    The map decides which classes an image has, as in the official code: an unseen object outside the crop or between
    the cells does not count.
    """
    return [_cells_of(one.ravel(), unseen) for one in label]


def _cells_of(label: np.ndarray, unseen: Collection[int]) -> ClassCells:
    counts = np.bincount(label, minlength=IGNORE + 1)
    classes = np.flatnonzero(counts[:IGNORE]).tolist()
    order = np.argsort(label, kind="stable")  # a radix sort for uint8
    cells = np.split(order, np.cumsum(counts[classes]))[:-1]  # 255 sorts last
    return ClassCells(classes, cells, any(number in unseen for number in classes))


def paste_unseen(
    label: np.ndarray, unseen: Sequence[int], share: float, background: int | None, draw: torch.Generator | None = None
) -> list[tuple[int, int] | None]:
    """For each of the label maps [B, h, w] without unseen classes: (class, unseen class that replaces it), or None.

    With probability `share`, a random class of the image other than background is replaced by a random unseen class.
    This gives layouts for generated features without any label of unseen classes. None for images of background only.
    """
    swaps: list[tuple[int, int] | None] = []
    for one in label:
        present = [c for c in np.unique(one).tolist() if c not in (IGNORE, background)]
        chance, place, other = torch.rand(3, generator=draw).tolist()
        if not present or chance >= share:
            swaps.append(None)
        else:
            swaps.append((present[int(place * len(present))], unseen[int(other * len(unseen))]))
    return swaps
