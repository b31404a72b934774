"""Joint transforms: one geometry for image, label, saliency and pseudo label (OpenCV, RGB uint8, as the official code).

A transform takes a dict of fields, "image" [H, W, 3] and any maps [H, W], and a random generator with `.random()`.
"""

from typing import Literal, Protocol

import cv2
import numpy as np
from PIL import Image
from torchvision.transforms import functional as TF

from utils.labels import ignore_of
from utils.resize import interpolation, resize_square

MAX_ANGLE = 5.0  # degrees either way
SCALES = (0.75, 1.25)
BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25


class Random(Protocol):
    def random(self) -> float: ...


class ValTransform:
    """Resize to a square, aspect ignored: cubic for the image, nearest for maps."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        return {name: self.resize(name, values) for name, values in fields.items()}

    def resize(self, name: str, values: np.ndarray) -> np.ndarray:
        return resize_square(name, values, self.size)


class TrainTransform(ValTransform):
    """Horizontal flip (p 0.5), rotation by up to 5 degrees and scale 0.75-1.25 about the centre, then the resize.

    Pixels that come in from outside are black and labelled background, as in the official code, or `border="ignore"`.
    """

    def __init__(self, size: int, border: Literal["background", "ignore"] = "background"):
        super().__init__(size)
        self.ignore_border = border == "ignore"

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        flip = rng.random() < 0.5
        angle = 2 * MAX_ANGLE * rng.random() - MAX_ANGLE
        scale = (SCALES[1] - SCALES[0]) * rng.random() + SCALES[0]
        warped = {name: self._warp(name, values, flip, angle, scale) for name, values in fields.items()}
        return super().__call__(warped, rng)

    def _warp(self, name: str, values: np.ndarray, flip: bool, angle: float, scale: float) -> np.ndarray:
        height, width = values.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        border = ignore_of(values) if self.ignore_border and name in ("label", "pseudo") else 0
        values = cv2.flip(values, 1) if flip else values
        return cv2.warpAffine(values, matrix, (width, height), flags=interpolation(name), borderValue=border)


class WeakStrongTransform(TrainTransform):
    """TrainTransform, plus the field "strong": the same view with jittered colours."""

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray]:
        weak = super().__call__(fields, rng)
        return {**weak, "strong": color_jitter(weak["image"], rng)}


def color_jitter(
    image: np.ndarray,
    rng: Random,
    brightness: float = BRIGHTNESS,
    contrast: float = CONTRAST,
    saturation: float = SATURATION,
    hue: float = HUE,
) -> np.ndarray:
    """torchvision's ColorJitter on a PIL image, uint8 [H, W, 3], with every draw from `rng`."""
    changes = [
        (TF.adjust_brightness, 1 - brightness, 1 + brightness),
        (TF.adjust_contrast, 1 - contrast, 1 + contrast),
        (TF.adjust_saturation, 1 - saturation, 1 + saturation),
        (TF.adjust_hue, -hue, hue),
    ]
    order = np.argsort([rng.random() for _ in changes])
    picture = Image.fromarray(image)
    for index in order:
        change, low, high = changes[index]
        picture = change(picture, low + (high - low) * rng.random())
    return np.asarray(picture)


def grayscale(image: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601) in all three channels, uint8 [H, W, 3]."""
    return np.asarray(TF.rgb_to_grayscale(Image.fromarray(image), num_output_channels=3))
