"""Inputs that anyone can draw again: pictures, labels, what a network could say of them."""

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 512


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth RGB image with noise, uint8 [H, W, 3]."""
    r = np.random.RandomState(seed)
    small = Image.fromarray(np.uint8(r.rand(12, 16, 3) * 255))
    large = np.array(small.resize((width, height), Image.Resampling.BILINEAR), dtype=np.int64)
    return np.clip(large + r.randint(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)


def label(seed: int, height: int, width: int) -> np.ndarray:
    """Rectangles of classes 1..20 and a band of 255, uint8 [H, W]."""
    r = np.random.RandomState(seed)
    values = np.zeros((height, width), np.uint8)
    for _ in range(5):
        y, x = r.randint(0, height - 20), r.randint(0, width - 20)
        number = r.randint(1, 21)
        rows, columns = r.randint(15, height // 2), r.randint(15, width // 2)
        values[y : y + rows, x : x + columns] = number
    values[height // 2 : height // 2 + 4] = 255
    return values


class Scene(NamedTuple):
    """One object: where it is and what the network says of it. Its outer part is below the saliency threshold."""

    number: int  # true class 1..20
    top: int
    left: int
    side: int
    inner: np.ndarray  # embedding where the saliency logit is 5
    outer: np.ndarray  # where it is 0.6
    around: np.ndarray  # where it is 0.3
    ground: np.ndarray  # where it is -2
    size: tuple[int, int]  # of the image file
    empty: bool  # no pixel above the threshold
    index: int

    def logit(self) -> np.ndarray:
        """Up-sampled saliency logit, float32 [512, 512]."""
        values = np.full((SIDE, SIDE), -2, np.float32)
        for area, logit, _ in self.areas():
            values[area] = logit
        return values

    def embedding(self) -> np.ndarray:
        """Up-sampled embedding, float32 [32, 512, 512]."""
        values = np.broadcast_to(self.ground[:, None, None], (32, SIDE, SIDE)).copy()
        for area, _, vector in self.areas():
            values[(slice(None), *area)] = vector[:, None, None]
        return values

    def areas(self) -> list[tuple[tuple[slice, slice], float, np.ndarray]]:
        """(where, saliency logit, embedding), later ones on top."""
        y, x, a = self.top, self.left, self.side
        areas = [
            ((slice(y - 20, y + a + 20), slice(x - 20, x + 3 * a + 20)), 0.3, self.around),
            ((slice(y, y + a), slice(x + a, x + 3 * a)), 0.6, self.outer),
            ((slice(y, y + a), slice(x, x + a)), 5.0, self.inner),
        ]
        return [] if self.empty else areas

    def prototype(self) -> np.ndarray:
        """The exact evaluation prototype, float64 [32]."""
        if self.empty:
            return np.zeros(32)
        total = 5.0 * self.side**2 * self.inner.astype(np.float64) + 0.6 * 2 * self.side**2 * self.outer
        return total / np.linalg.norm(total)

    def truth(self) -> np.ndarray:
        """Ground truth uint8 [512, 512]; every tenth image shows another class than its features say."""
        values = np.zeros((SIDE, SIDE), np.uint8)
        y, x, a = self.top, self.left, self.side
        values[y - 20 : y - 10] = 255
        shown = self.number % 20 + 1 if self.index % 10 == 9 else self.number
        values[y + 10 : y + a + 10, x : x + 3 * a] = shown
        return values

    def native_truth(self) -> np.ndarray:
        """The same at the size of the file."""
        height, width = self.size
        return self.truth()[np.ix_(np.arange(height) * SIDE // height, np.arange(width) * SIDE // width)]


def unit(seed: int) -> np.ndarray:
    vector = np.random.RandomState(seed).randn(32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def scene(base: int, index: int) -> Scene:
    """The recipe of golden case g7 for image `index`."""
    r = np.random.RandomState(base + index)
    number = index % 20 + 1
    second = 1 + r.randint(0, 20)
    sign = 1 if r.rand() < 0.5 else -1
    top, left, side = r.randint(40, 200), r.randint(40, 200), r.randint(60, 90)
    size = (r.randint(300, 501), r.randint(300, 501))
    noise = 0.02 * r.randn(32)
    shift = 3 * sign * unit(999) + noise
    inner, outer = ((unit(1000 + c) + shift).astype(np.float32) for c in (number, second))
    around = 8 * unit(1000 + (number + 5) % 20 + 1)
    ground = 3 * unit(base + 500 + index)
    return Scene(number, top, left, side, inner, outer, around, ground, size, index % 25 == 24, index)
