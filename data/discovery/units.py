"""Units of clustering: the whole novel region of an image (NCDSS), or its connected parts.

H W pixels. Parts of an image are numbered from 1, largest first; 0 is no part. A list of units fixes the order of rows
in all clustering results.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from data.io import read_label
from utils.checkpoint import read_as

V = TypeVar("V")
FOLDER = "parts"  # maps of parts in a pseudo-label folder
CERTAINTY = "certainty.json"  # silhouette of each unit, in a pseudo-label folder
NOVEL_MAPS = "novel_map"  # novel regions: salient, if saliency is used, and not certainly a base class


class Unit(NamedTuple):
    """One part of one image."""

    image: str
    part: int = 1


def connected_parts(region: np.ndarray, least: float, cells: np.ndarray | None = None) -> np.ndarray:
    """8-connected parts of a region bool [H, W], numbered in uint16 [H, W].

    Parts below the share `least` of the image are left out. With `cells`, int [H, W], parts end at cell borders.
    """
    cells = np.zeros(region.shape, np.int32) if cells is None else cells
    found: list[tuple[int, np.ndarray]] = []  # (pixels of a part, its mask)
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
    """Part number of each pixel [H, W]; the whole novel region is part 1 for images without a map of parts."""
    path = folder / FOLDER / f"{image_id}.png"
    return (
        read_label(path) if path.is_file() else (read_label(folder / NOVEL_MAPS / f"{image_id}.png") > 0).astype("u1")
    )


def list_units(sizes: Mapping[str, Sequence[int]], images: Iterable[str]) -> list[Unit]:
    """The units of `images`; `sizes` has the pixels of each part by image."""
    return [Unit(image, part) for image in images for part in range(1, len(sizes[image]) + 1)]


def by_image(units: Sequence[Unit], values: Iterable[Any], whole: bool) -> dict[str, Any]:
    """Values of units in file format: image -> list of the values of its parts, or its only value if `whole`."""
    found: dict[str, list[Any]] = {}
    for unit, value in zip(units, values, strict=True):
        found.setdefault(unit.image, []).append(value)
    return {image: values[0] for image, values in found.items()} if whole else found


def by_unit(content: Mapping[str, Any]) -> dict[Unit, Any]:
    """Inverse of `by_image`."""
    listed = {image: found if isinstance(found, list) else [found] for image, found in content.items()}
    return {Unit(image, part): v for image, values in listed.items() for part, v in enumerate(values, start=1)}


def read_units(path: Path, kind: type[V]) -> dict[Unit, V]:
    """Reads a file in the format of `by_image`. Raises UserError for values of another type than `kind`."""
    return by_unit(read_as(path, dict[str, kind | list[kind]]))  # type: ignore[valid-type]


def mean_certainty_by_image(folder: Path) -> dict[str, float]:
    """Mean silhouette of the units of each image of a pseudo-label folder; empty if nothing was clustered."""
    path, found = folder / CERTAINTY, dict[str, list[float]]()
    for unit, value in (read_units(path, float) if path.is_file() else {}).items():
        found.setdefault(unit.image, []).append(value)
    return {image: float(np.mean(values)) for image, values in found.items()}
