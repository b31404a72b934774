"""Joint transforms: the same geometry for image, label, saliency and pseudo-label (OpenCV, as the official code).

A transform takes a dict of fields, "image" uint8 [H, W, 3] RGB and maps [H, W], and a random generator.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from utils.config.common import Transforms
from utils.labels import ignore_of
from utils.resize import interpolation, resize_square

MAX_ANGLE = 5.0  # degrees, in both directions
SCALES = (0.75, 1.25)


class Jitter(NamedTuple):
    """Largest deviation of the factors for brightness, contrast and saturation from 1, and of the hue shift from 0."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


STRONG = Jitter(0.5, 0.5, 0.5, 0.25)


class Random(Protocol):
    def random(self) -> float: ...


class ValTransform:
    """Resizes to a square without keeping the aspect ratio: cubic for images, nearest for maps."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        return {name: self.resize(name, values) for name, values in fields.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        return resize_square(name, values, self.size)


class TrainTransform(ValTransform):
    """Horizontal flip (p = 0.5), rotation by up to 5 degrees, scaling by 0.75 to 1.25, then the resize to a square.

    Pixels from outside the image are black and labelled background (official code), or ignored with border="ignore".
    transforms="fast" does everything in one bilinear warp; borders in maps move by up to a pixel.
    """

    def __init__(
        self, size: int, border: Literal["background", "ignore"] = "background", transforms: Transforms = "official"
    ):
        super().__init__(size)
        self.ignore_border, self.transforms = border == "ignore", transforms

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        flip = rng.random() < 0.5
        angle = 2 * MAX_ANGLE * rng.random() - MAX_ANGLE
        scale = (SCALES[1] - SCALES[0]) * rng.random() + SCALES[0]
        warp = self._warp_once if self.transforms == "fast" else self._warp
        return {name: warp(name, values, flip, angle, scale) for name, values in fields.items()}

    def _warp(self, name: str, values: np.ndarray, flip: bool, angle: float, scale: float) -> np.ndarray:
        height, width = values.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        values = cv2.flip(values, 1) if flip else values
        border = self._border(name, values)
        warped = cv2.warpAffine(values, matrix, (width, height), flags=interpolation(name), borderValue=border)
        return self.resize(name, warped)

    def _warp_once(self, name: str, values: np.ndarray, flip: bool, angle: float, scale: float) -> np.ndarray:
        height, width = values.shape[:2]
        matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), (0, 0, 1)])
        mirror = np.array([(-1, 0, width - 1), (0, 1, 0), (0, 0, 1)]) if flip else np.eye(3)
        across, down = self.size / width, self.size / height
        square = np.array([(across, 0, (across - 1) / 2), (0, down, (down - 1) / 2), (0, 0, 1)])  # of pixel centres
        way = cv2.INTER_LINEAR if name == "image" else cv2.INTER_NEAREST
        whole = (square @ matrix @ mirror)[:2]
        return cv2.warpAffine(values, whole, (self.size, self.size), flags=way, borderValue=self._border(name, values))

    def _border(self, name: str, values: np.ndarray) -> int:
        return ignore_of(values) if self.ignore_border and name in ("label", "pseudo") else 0


class WeakStrongTransform(TrainTransform):
    """TrainTransform with the additional field "strong": the same view with jittered colours."""

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        weak = super().__call__(fields, rng)
        return {**weak, "strong": color_jitter(weak["image"], rng, STRONG, self.transforms)}


def color_jitter(
    image: np.ndarray, rng: Random, jitter: Jitter = STRONG, transforms: Transforms = "official"
) -> np.ndarray:
    """torchvision's ColorJitter of a PIL image; uint8 [H, W, 3] -> the same.

    transforms="fast" computes saturation and hue with OpenCV, the slowest steps in PIL; the result differs by one grey
    level on average.
    """
    fast = transforms == "fast"
    changes: list[tuple[Callable[[np.ndarray, float], np.ndarray], float, float]] = [
        (adjust_brightness, 1 - jitter.brightness, 1 + jitter.brightness),
        (adjust_contrast, 1 - jitter.contrast, 1 + jitter.contrast),
        (fast_saturation if fast else adjust_saturation, 1 - jitter.saturation, 1 + jitter.saturation),
        (fast_hue if fast else adjust_hue, -jitter.hue, jitter.hue),
    ]
    for index in np.argsort([rng.random() for _ in changes]):
        change, low, high = changes[index]
        image = change(image, low + (high - low) * rng.random())
    return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """PIL's blend with black, by a look-up table."""
    return cv2.LUT(image, _blended(0, factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """PIL's blend with the mean luminance."""
    grey = np.asarray(Image.fromarray(image).convert("L"))
    return cv2.LUT(image, _blended(int(cv2.sumElems(grey)[0] / grey.size + 0.5), factor))


def _blended(level: int, factor: float) -> np.ndarray:
    """PIL's blend of each value with a level, uint8 [1, 256]."""
    values = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return np.asarray(Image.blend(Image.new("L", values.size, level), values, factor))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """torchvision's: rotates PIL's hue, 256 values, by `shift`, a share of the circle."""
    hue, *rest = Image.fromarray(image).convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(shift * 255) % 256)
    return np.asarray(Image.merge("HSV", (Image.fromarray(turned), *rest)).convert("RGB"))


def fast_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def fast_hue(image: np.ndarray, shift: float) -> np.ndarray:
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    table[:, 0] += np.uint8(int(shift * 255) % 256)  # around the circle
    turned = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), table[None])
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)


def grayscale(image: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601) in all three channels, uint8 [H, W, 3]."""
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2)
