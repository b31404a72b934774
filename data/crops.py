"""Joint transforms of class-incremental segmentation (PIL, as the official code): scaled crops, the evaluation crop.

Only the part of an image that a training crop keeps is resampled, which may move pixels by one grey level; the
evaluation crop is PIL's to the last digit. Fields as in data.transforms.
"""

import math

import numpy as np

from data.transforms import Random
from utils.resize import resize_part, resize_whole, shorter_to

SCALES = (0.5, 2.0)
AREAS, RATIOS, TRIES = (0.5, 2.0), (3 / 4, 4 / 3), 10


class ScaleCrop:
    """SSUL: scale by U(0.5, 2), pad to the crop size with 0 (black background, not salient), crop, flip (p 0.5)."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        height, width = fields["image"].shape[:2]
        scale = (SCALES[1] - SCALES[0]) * rng.random() + SCALES[0]
        scaled = int(height * scale), int(width * scale)
        pad, (rows, columns) = padding(scaled, self.size)
        top, left = (_corner(room - self.size, rng) for room in (rows, columns))
        flip = rng.random() < 0.5
        return {name: self.crop(name, f, scaled, top - pad, left - pad, flip) for name, f in fields.items()}

    def crop(
        self, name: str, values: np.ndarray, scaled: tuple[int, int], top: int, left: int, flip: bool
    ) -> np.ndarray:
        """The square at (top, left) of the image scaled to `scaled`, 0 where it lies outside."""
        out = np.zeros((self.size, self.size, *values.shape[2:]), values.dtype)
        rows, columns = (
            slice(max(at, 0), min(at + self.size, end)) for at, end in zip((top, left), scaled, strict=True)
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            place = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            out[place] = resize_part(name, values, scaled, rows, columns)
        return np.ascontiguousarray(out[:, ::-1]) if flip else out


def padding(size: tuple[int, int], crop: int) -> tuple[int, tuple[int, int]]:
    """(pixels added on each side, size with them): all four sides grow for the width, then again for the height."""
    (height, width), pad = size, 0
    if width < crop:
        pad = (1 + crop - width) // 2
        height, width = height + 2 * pad, width + 2 * pad
    if height < crop:
        more = (1 + crop - height) // 2
        height, width, pad = height + 2 * more, width + 2 * more, pad + more
    return pad, (height, width)


class ResizedCrop:
    """A crop of 0.5 to 2 times the area (MiB, PLOP; more than 1 never fits) or of `areas`, ratio 3/4 to 4/3, resized to
    a square; flip (p 0.5).
    """

    def __init__(self, size: int, areas: tuple[float, float] = AREAS):
        self.size, self.areas = size, areas

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        box = self.draw(fields["image"].shape[:2], rng)
        return self.crop(fields, box, flip=rng.random() < 0.5)

    def crop(self, fields: dict[str, np.ndarray], box: tuple[int, int, int, int], flip: bool) -> dict[str, np.ndarray]:
        """The square made of `box` (top, left, height, width)."""
        top, left, height, width = box
        made = {
            name: resize_whole(name, f[top : top + height, left : left + width], (self.size, self.size))
            for name, f in fields.items()
        }
        return {name: np.ascontiguousarray(values[:, ::-1]) if flip else values for name, values in made.items()}

    def draw(self, size: tuple[int, int], rng: Random) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop; after ten misses the largest central one of an admissible ratio."""
        height, width = size
        for _ in range(TRIES):
            area = height * width * (self.areas[0] + (self.areas[1] - self.areas[0]) * rng.random())
            low, high = map(math.log, RATIOS)
            ratio = math.exp(low + (high - low) * rng.random())
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return _corner(height - h, rng), _corner(width - w, rng), h, w
        ratio = min(max(width / height, RATIOS[0]), RATIOS[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - h) // 2, (width - w) // 2, h, w


class CentreCrop:
    """Evaluation: the shorter side to `size`, then the central square."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        return {name: self.resize(name, values) for name, values in fields.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        rows, columns = shorter_to(values.shape[:2], self.size)
        top, left = round((rows - self.size) / 2), round((columns - self.size) / 2)
        resized = resize_whole(name, values, (rows, columns))  # a part alone would be a grey level off
        return np.ascontiguousarray(resized[top : top + self.size, left : left + self.size])


def whole(fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
    """Evaluation at the images' own size: nothing changes."""
    return fields


def _corner(room: int, rng: Random) -> int:
    """Uniform in 0..room; no draw when there is no room."""
    return int(rng.random() * (room + 1)) if room > 0 else 0
