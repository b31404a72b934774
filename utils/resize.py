"""Resizing of images uint8 [H, W, 3] and maps [H, W] with the library of each official program.

OpenCV for class discovery and probes, PIL for class-incremental learning.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image


def interpolation(name: str) -> int:
    """OpenCV interpolation flag of a field: cubic for images, nearest for maps."""
    return cv2.INTER_CUBIC if name == "image" else cv2.INTER_NEAREST


def resize_square(name: str, values: np.ndarray, size: int) -> np.ndarray:
    """Resize a field to size x size pixels; the aspect ratio is not kept."""
    return cv2.resize(values, (size, size), interpolation=interpolation(name))


def shorter_to(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side is resized to `size`."""
    short = min(shape)
    return int(size * shape[0] / short), int(size * shape[1] / short)


def resize_shorter(image: np.ndarray, size: int, divisor: int = 1) -> np.ndarray:
    """Resize an image so that its shorter side is `size`; both sides are rounded to multiples of `divisor`."""
    height, width = (max(1, round(side / divisor)) * divisor for side in shorter_to(image.shape[:2], size))
    return resize_whole("image", image, (height, width))


def shortest_edge(shape: Sequence[int], size: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shorter side `size`, or the longer side `longest` if it would exceed that."""
    height, width = shape[:2]
    scale = size / min(height, width)
    rows, columns = (size, scale * width) if height < width else (scale * height, size)
    if max(rows, columns) > longest:
        scale = longest / max(rows, columns)
        rows, columns = rows * scale, columns * scale
    return int(rows + 0.5), int(columns + 0.5)


def resize_edge(image: np.ndarray, size: int, longest: int) -> np.ndarray:
    """Resize an image to the size given by `shortest_edge`."""
    return resize_whole("image", image, shortest_edge(image.shape, size, longest))


def resize_whole(name: str, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a field as PIL does, bit by bit: bilinear for images, nearest for maps."""
    if name != "image":
        return _take(values, *(nearest(*axis) for axis in zip(values.shape, size, strict=True)))
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_part(name: str, values: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """`resize_whole(name, values, size)[rows, columns]`, computed for these rows only.

    Maps are equal. If `rows` are not all rows, pixels of an image may differ by one grey level, because PIL stores the
    borders of a box in single precision. This is used for random crops.
    """
    if name != "image":
        return _take(values, nearest(values.shape[0], size[0])[rows], nearest(values.shape[1], size[1])[columns])
    # all columns: a box on both axes would add up to 2 grey levels of rounding
    height, width = values.shape[:2]
    scale = height / size[0]
    box = (0, rows.start * scale, width, min(rows.stop * scale, height))
    strip = Image.fromarray(values).resize((size[1], rows.stop - rows.start), Image.Resampling.BILINEAR, box=box)
    return np.asarray(strip)[:, columns]


def resize_box(name: str, values: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """`resize_part`, a third faster, for these columns only; a few pixels in a thousand differ by one grey level."""
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
    """`resize_part` by OpenCV for images: bilinear (at most one grey level off), area means for smaller heights.

    A shrunk image is sharper than PIL's, whose triangle filter is twice as wide.
    """
    if name != "image":
        return resize_part(name, values, size, rows, columns)
    way = cv2.INTER_AREA if size[0] < values.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(values, size[::-1], interpolation=way)[rows, columns]


def _take(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[np.ix_(rows, columns)], but three times as fast."""
    return values.take(rows, 0).take(columns, 1)


def nearest(old: int, new: int) -> np.ndarray:
    """Source index of each of `new` pixels. Repeated addition, as in PIL, so that ties are rounded alike."""
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)
