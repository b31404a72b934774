"""Joint transforms of weak-shot segmentation, as in detectron2's MaskFormer: scale, crop, colour jitter, padding.

Only the cropped part of an image is resampled, which may change a pixel by one grey level. A crop without any class is
drawn again before the image is resampled.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from data.transforms import Random
from utils.labels import IGNORE
from utils.resize import resize_box, resize_edge, shortest_edge

DRAWS = 50  # attempts to draw a crop with a class
GREY = 128  # value of image padding
BRIGHTNESS, HUE = 32, 18  # largest shift in either direction, of 256 levels and of 180 half degrees
FACTORS = (0.5, 1.5)  # range for contrast and saturation

Fields = dict[str, np.ndarray]


class WeakCrop:
    """Resizes the shorter side to one of `sizes`, crops at most `size` pixels, jitters colours, flips (p 0.5), pads.

    Takes "image" uint8 [H, W, 3], "label" uint8 [H, W] (255 ignored) and, if the image has tags, "tags" uint8 [K].
    Gives "image" [S, S, 3], "label" [S, S] and "padding" [S, S] (1 right of the crop and below), the image 128 and the
    label 255 there; "present" uint8 [K]: the classes of the crop, and those of the tags. None when 50 crops show none.
    """

    def __init__(self, size: int, sizes: Sequence[int], longest: int, num_classes: int):
        self.size, self.sizes, self.longest, self.num_classes = size, tuple(sizes), longest, num_classes

    def __call__(self, fields: Fields, rng: Random) -> Fields | None:
        image, label, tags = fields["image"], fields["label"], fields.get("tags")
        for _ in range(DRAWS):
            scaled = shortest_edge(label.shape, self.sizes[below(len(self.sizes), rng)], self.longest)
            rows, columns = (self._span(length, rng) for length in scaled)
            part = resize_label(label, scaled, rows, columns)
            present = classes_in(part, self.num_classes)
            if tags is not None:
                present |= tags
            if present.any():
                picture = recolor(resize_box("image", image, scaled, rows, columns), rng)
                return {**self.padded(picture, part, flip=rng.random() < 0.5), "present": present}
        return None

    def _span(self, length: int, rng: Random) -> slice:
        """The crop along one axis."""
        kept = min(length, self.size)
        start = below(length - kept + 1, rng)
        return slice(start, start + kept)

    def padded(self, image: np.ndarray, label: np.ndarray, flip: bool) -> Fields:
        """A crop, flipped, in the upper left corner of the square."""
        if flip:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        room = (0, self.size - label.shape[0], 0, self.size - label.shape[1])
        padding = np.zeros(label.shape, np.uint8)
        return {
            "image": cv2.copyMakeBorder(image, *room, cv2.BORDER_CONSTANT, value=(GREY,) * 3),
            "label": cv2.copyMakeBorder(label, *room, cv2.BORDER_CONSTANT, value=IGNORE),
            "padding": cv2.copyMakeBorder(padding, *room, cv2.BORDER_CONSTANT, value=1),
        }


class ShortestEdge:
    """Evaluation: resizes the image to shorter side `size`, longer side at most `longest`; labels are unchanged."""

    def __init__(self, size: int, longest: int):
        self.size, self.longest = size, longest

    def __call__(self, fields: Fields, rng: Random | None = None) -> Fields:
        return {name: self.resize(values) if name == "image" else values for name, values in fields.items()}

    def resize(self, image: np.ndarray) -> np.ndarray:
        return resize_edge(image, self.size, self.longest)


def resize_label(label: np.ndarray, size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """`rows` and `columns` of a map resized to `size`, nearest neighbour as in torch: pixel floor(i * old / new)."""
    height, width = label.shape
    return label.take(_nearest(height, size[0])[rows], 0).take(_nearest(width, size[1])[columns], 1)


def _nearest(old: int, new: int) -> np.ndarray:
    """Source index of each of `new` pixels, as torch computes it for doubles: the product rounded to float32.

    If i * old / new is an integer, torch's kernels disagree among themselves by up to one pixel.
    """
    return np.minimum((np.arange(new) * (old / new)).astype(np.float32).astype(np.int64), old - 1)


def classes_in(label: np.ndarray, num_classes: int) -> np.ndarray:
    """uint8 [K]: 1 for each class with a pixel in a label uint8 [H, W]."""
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])
    return (counts.ravel()[:num_classes] > 0).astype(np.uint8)


def below(bound: int, rng: Random) -> int:
    """Uniform in 0 .. bound - 1."""
    return int(rng.random() * bound)


# ---- colours


def recolor(image: np.ndarray, rng: Random) -> np.ndarray:
    """The colour changes of SSD (Liu et al., ECCV 2016) on an image uint8 [H, W, 3], each with probability 1/2.

    Brightness first, then contrast before saturation and hue or behind them, with equal chance. Every change truncates
    to integer levels.
    """
    if _coin(rng):
        image = brightness(image, _uniform(-BRIGHTNESS, BRIGHTNESS, rng))
    contrast_first = _coin(rng)
    for change in (_contrast, _saturation, _hue) if contrast_first else (_saturation, _hue, _contrast):
        if _coin(rng):
            image = change(image, rng)
    return image


def brightness(image: np.ndarray, shift: float) -> np.ndarray:
    """Levels plus `shift`."""
    return cv2.LUT(image, _table(1, shift))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Levels times `factor`."""
    return cv2.LUT(image, _table(factor, 0))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Saturation (HSV) times `factor`."""
    return _through_hsv(image, 1, _table(factor, 0))


def hue(image: np.ndarray, shift: int) -> np.ndarray:
    """Hue, in half degrees, plus `shift`."""
    return _through_hsv(image, 0, ((np.arange(256) + shift) % 180).astype(np.uint8))


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    tables = np.stack([np.arange(256, dtype=np.uint8)] * 3, axis=-1)
    tables[:, channel] = table
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None]), cv2.COLOR_HSV2RGB)


def _table(factor: float, shift: float) -> np.ndarray:
    levels = np.arange(256, dtype=np.float32) * factor + shift
    return np.clip(levels, 0, 255).astype(np.uint8)


def _contrast(image: np.ndarray, rng: Random) -> np.ndarray:
    return contrast(image, _uniform(*FACTORS, rng))


def _saturation(image: np.ndarray, rng: Random) -> np.ndarray:
    return saturation(image, _uniform(*FACTORS, rng))


def _hue(image: np.ndarray, rng: Random) -> np.ndarray:
    return hue(image, below(2 * HUE + 1, rng) - HUE)


def _uniform(low: float, high: float, rng: Random) -> float:
    return low + (high - low) * rng.random()


def _coin(rng: Random) -> bool:
    return rng.random() < 0.5
