"""What of an image is clustered as one thing: all of its novel region (NCDSS), or parts of it that hang together.

H W pixels. Parts of an image are numbered from 1, the largest first; 0 is no part. `units` are the parts of many images
in a fixed order, the rows of everything that clustering computes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from data.io import read_label
from utils.checkpoint import read_as

V = TypeVar("V")
FOLDER = "parts"  # of a pseudo-label folder: the maps of parts, where images have several
NOVEL_MAPS = "novel_map"  # what is salient, where that counts, and not certainly base


class Unit(NamedTuple):
    """One part of one image."""

    image: str
    part: int = 1


def connected_parts(region: np.ndarray, least: float, cells: np.ndarray | None = None) -> np.ndarray:
    """Parts of a region bool [H, W] that hang together, corners included, uint16 [H, W].

    A part that is smaller than the share `least` of the image is left out. With `cells`, int [H, W], no part reaches
    over the border of a cell.
    """
    cells = np.zeros(region.shape, np.int32) if cells is None else cells
    found: list[tuple[int, np.ndarray]] = []  # pixels of a part, and where it is
    for cell in np.unique(cells[region]):
        here = (region & (cells == cell)).astype(np.uint8)
        count, numbers, facts, _ = cv2.connectedComponentsWithStats(here, connectivity=8)
        pixels = facts[:, cv2.CC_STAT_AREA]
        found += [(int(pixels[n]), numbers == n) for n in range(1, count) if pixels[n] >= least * region.size]
    parts = np.zeros(region.shape, np.uint16)
    for number, (_, where) in enumerate(sorted(found, key=lambda part: -part[0]), start=1):
        parts[where] = number
    return parts


def read_parts(folder: Path, image_id: str) -> np.ndarray:
    """Number of the part of each pixel, [H, W], of a pseudo-label folder: all of the novel region is part 1 of images
    that are clustered whole.
    """
    path = folder / FOLDER / f"{image_id}.png"
    return (
        read_label(path) if path.is_file() else (read_label(folder / NOVEL_MAPS / f"{image_id}.png") > 0).astype("u1")
    )


def list_units(sizes: Mapping[str, Sequence[int]], images: Iterable[str]) -> list[Unit]:
    """The units of some images, whose parts have `sizes`."""
    return [Unit(image, part) for image in images for part in range(1, len(sizes[image]) + 1)]


def by_image(units: Sequence[Unit], values: Iterable[Any], whole: bool) -> dict[str, Any]:
    """A value of each unit as files hold them: image -> its value, or a list, that of each part, unless it is whole."""
    found: dict[str, list[Any]] = {}
    for unit, value in zip(units, values, strict=True):
        found.setdefault(unit.image, []).append(value)
    return {image: values[0] for image, values in found.items()} if whole else found


def by_unit(content: Mapping[str, Any]) -> dict[Unit, Any]:
    """What `by_image` made, by unit again."""
    listed = {image: found if isinstance(found, list) else [found] for image, found in content.items()}
    return {Unit(image, part): v for image, values in listed.items() for part, v in enumerate(values, start=1)}


def read_units(path: Path, kind: type[V]) -> dict[Unit, V]:
    """A file of `by_image` with values of a kind; UserError when it holds anything else."""
    return by_unit(read_as(path, dict[str, kind | list[kind]]))  # type: ignore[valid-type]
