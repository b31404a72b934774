"""Resizing of images uint8 [H, W, 3] and of maps [H, W], as the official programs do it: OpenCV for class discovery and
probes, PIL for class-incremental learning."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image


def interpolation(name: str) -> int:
    """OpenCV's flag for a field: cubic for the image, nearest for maps."""
    return cv2.INTER_CUBIC if name == "image" else cv2.INTER_NEAREST


def resize_square(name: str, values: np.ndarray, size: int) -> np.ndarray:
    """A field at size x size pixels, whatever its proportions were."""
    return cv2.resize(values, (size, size), interpolation=interpolation(name))


def shorter_to(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) with the shorter side `size`."""
    short = min(shape)
    return int(size * shape[0] / short), int(size * shape[1] / short)


def resize_shorter(image: np.ndarray, size: int, divisor: int = 1) -> np.ndarray:
    """The whole image with the shorter side `size`, both as near as multiples of `divisor` allow."""
    height, width = (max(1, round(side / divisor)) * divisor for side in shorter_to(image.shape[:2], size))
    return resize_whole("image", image, (height, width))


def shortest_edge(shape: Sequence[int], size: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shorter side `size`; where the longer one were above `longest`, that instead."""
    height, width = shape[:2]
    scale = size / min(height, width)
    rows, columns = (size, scale * width) if height < width else (scale * height, size)
    if max(rows, columns) > longest:
        scale = longest / max(rows, columns)
        rows, columns = rows * scale, columns * scale
    return int(rows + 0.5), int(columns + 0.5)


def resize_edge(image: np.ndarray, size: int, longest: int) -> np.ndarray:
    """The whole image at the size of `shortest_edge`."""
    return resize_whole("image", image, shortest_edge(image.shape, size, longest))


def resize_whole(name: str, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A field at `size`, bilinear for the image, nearest for maps: to the last digit what PIL makes."""
    if name != "image":
        return _take(values, *(nearest(*axis) for axis in zip(values.shape, size, strict=True)))
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_part(name: str, values: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """`resize_whole(name, values, size)[rows, columns]` without the rest.

    A map is the same; pixels of an image may be one grey level off where `rows` are not all rows: PIL keeps the borders
    of a part in single precision. Good enough for a crop that is drawn by chance anyway.
    """
    if name != "image":
        return _take(values, nearest(values.shape[0], size[0])[rows], nearest(values.shape[1], size[1])[columns])
    # all columns: with a box on both axes rounding would add up to 2 grey levels
    height, width = values.shape[:2]
    scale = height / size[0]
    box = (0, rows.start * scale, width, min(rows.stop * scale, height))
    strip = Image.fromarray(values).resize((size[1], rows.stop - rows.start), Image.Resampling.BILINEAR, box=box)
    return np.asarray(strip)[:, columns]


def resize_box(name: str, values: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """The same a third faster, without columns that are not asked for: a few pixels in a thousand are a level off."""
    if name != "image":
        return resize_part(name, values, size, rows, columns)
    (height, width), (down, across) = (
        values.shape[:2],
        (old / new for old, new in zip(values.shape, size, strict=False)),
    )
    ends = min(columns.stop * across, width), min(rows.stop * down, height)
    shape = columns.stop - columns.start, rows.stop - rows.start
    box = (columns.start * across, rows.start * down, *ends)
    return np.asarray(Image.fromarray(values).resize(shape, Image.Resampling.BILINEAR, box=box))


def resize_fast(name: str, values: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """The same of an image by OpenCV: bilinear, at most a grey level off, and means of areas where it shrinks.

    What PIL weighs with a triangle, twice as wide, comes out sharper there.
    """
    if name != "image":
        return resize_part(name, values, size, rows, columns)
    way = cv2.INTER_AREA if size[0] < values.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(values, size[::-1], interpolation=way)[rows, columns]


def _take(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[np.ix_(rows, columns)], three times as fast."""
    return values.take(rows, 0).take(columns, 1)


def nearest(old: int, new: int) -> np.ndarray:
    """Source index of each of `new` pixels, in PIL's arithmetic: one addition after the other decides the ties."""
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)
