"""Joint transforms of class-incremental and zero-shot segmentation (PIL, as the official code): crops, whole images.

Training crops resample only the part of an image that they keep, which differs from PIL by at most one grey level; the
evaluation crop equals PIL's. Fields and transforms="fast" are as in data.transforms.
"""

import math

import cv2
import numpy as np

from data.transforms import Random
from utils.config.common import Transforms
from utils.labels import ignore_of
from utils.resize import resize_box, resize_fast, resize_part, resize_whole, shorter_to

SCALES = (0.5, 2.0)
AREAS, RATIOS, TRIES = (0.5, 2.0), (3 / 4, 4 / 3), 10


class ScaleCrop:
    """SSUL: scaling by U(0.5, 2), zero padding to the crop size, crop, horizontal flip (p = 0.5).

    Padding is black, background and not salient.
    """

    def __init__(self, size: int, transforms: Transforms = "official"):
        self.size, self.part = size, resize_fast if transforms == "fast" else resize_part

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
        """The square at (top, left) of the image resized to `scaled`; 0 outside the image."""
        out = np.zeros((self.size, self.size, *values.shape[2:]), values.dtype)
        rows, columns = (
            slice(max(at, 0), min(at + self.size, end)) for at, end in zip((top, left), scaled, strict=True)
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            place = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            out[place] = self.part(name, values, scaled, rows, columns)
        return cv2.flip(out, 1) if flip else out


def padding(size: tuple[int, int], crop: int) -> tuple[int, tuple[int, int]]:
    """(pixels added on each side, padded size). The official code pads all four sides for a missing width, then again
    for a missing height.
    """
    (height, width), pad = size, 0
    if width < crop:
        pad = (1 + crop - width) // 2
        height, width = height + 2 * pad, width + 2 * pad
    if height < crop:
        more = (1 + crop - height) // 2
        height, width, pad = height + 2 * more, width + 2 * more, pad + more
    return pad, (height, width)


class ResizedCrop:
    """Random resized crop with horizontal flip (p = 0.5): area of `areas` times the image, aspect ratio 3/4 to 4/3.

    The default areas are those of MiB and PLOP; draws above 1 do not fit and are repeated.
    """

    def __init__(self, size: int, transforms: Transforms = "official", areas: tuple[float, float] = AREAS):
        self.size, self.transforms, self.areas = size, transforms, areas

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        box = self.draw(fields["image"].shape[:2], rng)
        return self.crop(fields, box, flip=rng.random() < 0.5)

    def crop(self, fields: dict[str, np.ndarray], box: tuple[int, int, int, int], flip: bool) -> dict[str, np.ndarray]:
        """`box` (top, left, height, width) resized to a square."""
        top, left, height, width = box
        made = {name: self.resize(name, f[top : top + height, left : left + width]) for name, f in fields.items()}
        return {name: cv2.flip(values, 1) if flip else values for name, values in made.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        """A field resized to a square."""
        size = self.size, self.size
        if self.transforms == "fast":
            return resize_fast(name, values, size, slice(None), slice(None))
        return resize_whole(name, values, size)

    def draw(self, size: tuple[int, int], rng: Random) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop; after ten failed draws the largest central crop within RATIOS."""
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
    """Evaluation: resizes the shorter side to `size`, then takes the central square."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        return {name: self.resize(name, values) for name, values in fields.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        rows, columns = shorter_to(values.shape[:2], self.size)
        top, left = round((rows - self.size) / 2), round((columns - self.size) / 2)
        resized = resize_whole(name, values, (rows, columns))  # resampling the part alone differs by one grey level
        return np.ascontiguousarray(resized[top : top + self.size, left : left + self.size])


class ScaleBlurCrop:
    """ZS3: flip (p = 0.5), shorter side to 0.5 to 2 times the crop size, crop, Gaussian blur (p = 0.5, radius U(0, 1)).

    Smaller images are padded on the right and at the bottom: black, and ignored in maps.
    """

    def __init__(self, size: int, transforms: Transforms = "official", blur: bool = True):
        self.size, self.blur = size, blur
        self.part = resize_fast if transforms == "fast" else resize_box

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        flip = rng.random() < 0.5
        least, most = (int(self.size * scale) for scale in SCALES)
        scaled = shorter_to(fields["image"].shape[:2], least + _corner(most - least, rng))
        rows, columns = (max(side, self.size) for side in scaled)
        left, top = _corner(columns - self.size, rng), _corner(rows - self.size, rng)
        made = {name: self.crop(name, values, scaled, top, left, flip) for name, values in fields.items()}
        if self.blur and rng.random() < 0.5:
            made["image"] = blurred(made["image"], rng.random())
        return made

    def crop(
        self, name: str, values: np.ndarray, scaled: tuple[int, int], top: int, left: int, flip: bool
    ) -> np.ndarray:
        """The square at (top, left) of the flipped image resized to `scaled`."""
        fill = 0 if name == "image" else ignore_of(values)
        out = np.full((self.size, self.size, *values.shape[2:]), fill, values.dtype)
        rows, columns = (slice(at, min(at + self.size, end)) for at, end in zip((top, left), scaled, strict=True))
        if rows.start < rows.stop and columns.start < columns.stop:
            values = cv2.flip(values, 1) if flip else values
            part = self.part(name, values, scaled, rows, columns)
            out[: part.shape[0], : part.shape[1]] = part
        return out


def blurred(image: np.ndarray, radius: float) -> np.ndarray:
    """PIL's GaussianBlur for radii below 1, up to rounding and three times as fast; uint8 [H, W, 3].

    PIL applies three box filters along each axis and rounds to integers after each.
    """
    variance = radius * radius / 3
    side = variance / (2 * (1 - variance))  # box filter of fractional length as the filter (side, 1, side)
    kernel, one = np.array([side, 1, side], np.float32) / np.float32(1 + 2 * side), np.ones(1, np.float32)
    values: np.ndarray = image.astype(np.float32)
    for along, across in ((kernel, one),) * 3 + ((one, kernel),) * 3:
        values = cv2.sepFilter2D(values, cv2.CV_32F, along, across, delta=0.5, borderType=cv2.BORDER_REPLICATE)
        np.floor(values, out=values)
    return values.astype(np.uint8)


class ShorterSide:
    """Evaluation: the whole image, resized to a shorter side of `size`."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        return {name: self.resize(name, values) for name, values in fields.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        return resize_whole(name, values, shorter_to(values.shape[:2], self.size))


def whole(fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
    """Evaluation at image size: returns the fields unchanged."""
    return fields


def _corner(room: int, rng: Random) -> int:
    """Uniform integer in 0..room; draws nothing if room is 0 or less."""
    return int(rng.random() * (room + 1)) if room > 0 else 0
