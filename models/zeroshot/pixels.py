"""What step 2 of ZS3Net needs to know of a label map at feature resolution, found on the host in one go.

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
    """The layout of each of [B, h, w] label maps, uint8.

    Whether a class is there is asked of this map, not of the image: an unseen object that the crop cut away, or that
    falls between the cells, leaves an image of seen classes (official code).
    """
    return [_cells_of(one.ravel(), unseen) for one in label]


def _cells_of(label: np.ndarray, unseen: Collection[int]) -> ClassCells:
    counts = np.bincount(label, minlength=IGNORE + 1)
    classes = np.flatnonzero(counts[:IGNORE]).tolist()
    order = np.argsort(label, kind="stable")  # of uint8 a radix sort
    cells = np.split(order, np.cumsum(counts[classes]))[:-1]  # 255 sorts last
    return ClassCells(classes, cells, any(number in unseen for number in classes))


def paste_unseen(
    label: np.ndarray, unseen: Sequence[int], share: float, background: int | None, draw: torch.Generator | None = None
) -> list[tuple[int, int] | None]:
    """For each of [B, h, w] label maps without unseen classes: (class, unseen class that takes its place), or None.

    With probability `share` a class of the image, other than background, becomes a random unseen one: a layout for
    generated features that owes nothing to the labels of unseen classes. An image of background alone has None.
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
