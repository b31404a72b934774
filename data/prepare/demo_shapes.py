"""The twenty object classes of the demo set: outlines in [-1, 1] and usual textures.

An outline is a list of (sign, points): polygons [N, 2], x right and y down, that are added (+1) or removed (-1).
"""

from collections.abc import Callable

import numpy as np

Outline = list[tuple[int, np.ndarray]]


def _turn(n: int = 96) -> np.ndarray:
    return np.linspace(0, 2 * np.pi, n, endpoint=False)


def _polar(radius: np.ndarray) -> np.ndarray:
    angle = _turn(len(radius))
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _disc(x: float, y: float, rx: float, ry: float | None = None) -> np.ndarray:
    return np.stack([x + rx * np.cos(_turn()), y + (ry or rx) * np.sin(_turn())], axis=1)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points)


def _upper(shape: np.ndarray, y: float) -> np.ndarray:
    return np.stack([shape[:, 0], np.minimum(shape[:, 1], y)], axis=1)


def star() -> Outline:
    return [(1, _polar(np.tile([1.0, 0.42], 5)))]


def ring() -> Outline:
    return [(1, _disc(0, 0, 1)), (-1, _disc(0, 0, 0.5))]


def cross() -> Outline:
    return [(1, _box(-0.32, -1, 0.32, 1)), (1, _box(-1, -0.32, 1, 0.32))]


def heart() -> Outline:
    t = _turn()
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(1, np.stack([np.sin(t) ** 3, -(y + 2.5) / 15], axis=1))]


def arrow() -> Outline:
    return [(1, _polygon((-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)))]


def leaf() -> Outline:
    t = np.linspace(-1, 1, 40)
    width = 0.62 * (1 - t**2) * (1 + 0.08 * np.cos(22 * t))
    blade = np.concatenate([np.stack([width, t * 0.85], axis=1), np.stack([-width, t * 0.85], axis=1)[::-1]])
    return [(1, blade), (1, _box(-0.05, 0.7, 0.05, 1.1))]


def fish() -> Outline:
    fin = _polygon((-0.1, -0.4), (0.3, -0.75), (0.35, -0.3))
    return [(1, _disc(0.18, 0, 0.8, 0.48)), (1, _polygon((-0.4, 0), (-1, -0.6), (-0.85, 0), (-1, 0.6))), (1, fin)]


def gear() -> Outline:
    teeth = np.where(np.sin(9 * _turn(180)) > 0, 1.0, 0.76)
    return [(1, _polar(teeth)), (-1, _disc(0, 0, 0.3))]


def moon() -> Outline:
    return [(1, _disc(0, 0, 1)), (-1, _disc(0.52, -0.12, 0.82))]


def drop() -> Outline:
    t = _turn()
    return [(1, np.stack([0.8 * np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], axis=1))]


def house() -> Outline:
    roof = _polygon((-1, -0.1), (0, -1), (1, -0.1))
    return [
        (1, _box(-0.75, -0.12, 0.75, 0.9)),
        (1, roof),
        (-1, _box(-0.16, 0.35, 0.2, 0.92)),
        (1, _box(0.4, -0.9, 0.62, -0.3)),
    ]


def bolt() -> Outline:
    return [(1, _polygon((0.25, -1), (-0.65, 0.15), (-0.08, 0.15), (-0.3, 1), (0.65, -0.25), (0.08, -0.25)))]


def mushroom() -> Outline:
    return [(1, _upper(_disc(0, 0, 1, 0.95), 0.08)), (1, _polygon((-0.24, 0), (0.24, 0), (0.34, 0.95), (-0.34, 0.95)))]


def butterfly() -> Outline:
    wings = [_disc(x, -0.36, 0.52, 0.52) for x in (-0.52, 0.52)] + [_disc(x, 0.42, 0.38, 0.42) for x in (-0.4, 0.4)]
    return [(1, wing) for wing in wings] + [(1, _disc(0, 0, 0.12, 0.8))]


def flower() -> Outline:
    return [(1, _polar(0.7 + 0.3 * np.cos(6 * _turn(180))))]


def hourglass() -> Outline:
    return [(1, _polygon((-0.75, -1), (0.75, -1), (0.1, 0), (0.75, 1), (-0.75, 1), (-0.1, 0)))]


def cactus() -> Outline:
    trunk = [_box(-0.24, -0.75, 0.24, 1), _disc(0, -0.75, 0.24)]
    left = [_box(-0.8, -0.3, -0.46, 0.35), _box(-0.8, 0.08, 0, 0.4), _disc(-0.63, -0.3, 0.17)]
    right = [_box(0.46, -0.55, 0.8, 0.1), _box(0, -0.15, 0.8, 0.16), _disc(0.63, -0.55, 0.17)]
    return [(1, part) for part in trunk + left + right]


def umbrella() -> Outline:
    scallops = [(-1, _disc(x, 0.12, 0.26, 0.22)) for x in (-0.72, -0.24, 0.24, 0.72)]
    hook = [(1, _disc(0.16, 0.86, 0.22)), (-1, _disc(0.16, 0.84, 0.11)), (-1, _box(0.02, 0.55, 0.5, 0.84))]
    return [(1, _upper(_disc(0, 0.1, 1, 1), 0.12)), *scallops, *hook, (1, _box(-0.055, -0.9, 0.055, 0.88))]


def vase() -> Outline:
    t = np.linspace(-1, 1, 50)
    width = 0.42 + 0.26 * np.sin(2.6 * t + 0.6) + 0.18 * (t < -0.85)
    return [(1, np.concatenate([np.stack([width, t], axis=1), np.stack([-width, t], axis=1)[::-1]]))]


def bone() -> Outline:
    knobs = [_disc(x, y, 0.3) for x in (-0.74, 0.74) for y in (-0.24, 0.24)]
    return [(1, knob) for knob in knobs] + [(1, _box(-0.7, -0.2, 0.7, 0.2))]


# class -> outline, usual texture; the order is that of the class ids 1..20 (data/splits/demo/classes.yaml)
CLASSES: dict[str, tuple[Callable[[], Outline], str]] = {
    "star": (star, "rays"),
    "fish": (fish, "scales"),
    "cactus": (cactus, "stripes"),
    "ring": (ring, "bands"),
    "mushroom": (mushroom, "dots"),
    "gear": (gear, "metal"),
    "leaf": (leaf, "veins"),
    "house": (house, "bricks"),
    "heart": (heart, "plain"),
    "umbrella": (umbrella, "rays"),
    "moon": (moon, "craters"),
    "butterfly": (butterfly, "dots"),
    "bolt": (bolt, "metal"),
    "vase": (vase, "bands"),
    "cross": (cross, "bricks"),
    "flower": (flower, "rays"),
    "arrow": (arrow, "plain"),
    "hourglass": (hourglass, "stripes"),
    "drop": (drop, "scales"),
    "bone": (bone, "craters"),
}
TEXTURES = ("plain", "stripes", "bands", "dots", "scales", "bricks", "rays", "metal", "veins", "craters")


def texture(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pattern in [0, 1] at object coordinates u, v [H, W] (about -1..1 on the object)."""
    f, phase = rng.uniform(0.8, 1.25), rng.uniform(0, 2 * np.pi)
    angle = np.arctan2(v, u)
    radius = np.hypot(u, v)
    if kind == "stripes":
        return _step(np.sin(14 * f * u + phase))
    if kind == "bands":
        return _step(np.sin(11 * f * v + phase))
    if kind == "dots":
        return _step(np.cos(9 * f * u + phase) * np.cos(9 * f * v + phase) - 0.25)
    if kind == "scales":
        row = np.floor(v * 5 * f)
        x = (u * 5 * f + 0.5 * (row % 2)) % 1 - 0.5
        y = (v * 5 * f) % 1
        return _step(5 * (np.hypot(x, y - 0.15) - 0.5))
    if kind == "bricks":
        row = np.floor(v * 4 * f)
        x, y = (u * 2.5 * f + 0.5 * (row % 2)) % 1, (v * 4 * f) % 1
        return np.where((x < 0.09) | (y < 0.16), 0.1, 0.9)
    if kind == "rays":
        return _step(np.sin(np.round(8 * f) * angle + phase))
    if kind == "metal":
        return 0.5 + 0.5 * np.sin(2.2 * angle * 2 + phase + 3 * radius)
    if kind == "veins":
        return _step(3 * (np.abs(np.sin(6 * f * (v + 0.9 * np.abs(u)))) - 0.3) * np.minimum(1, 14 * np.abs(u)))
    if kind == "craters":
        centres, sizes = rng.uniform(-1, 1, (14, 2)), rng.uniform(0.08, 0.24, 14)
        holes = [np.hypot(u - x, v - y) < s for (x, y), s in zip(centres, sizes, strict=True)]
        return np.where(np.any(holes, axis=0), 0.15, 0.85)
    return np.full_like(u, 0.7)


def _step(wave: np.ndarray) -> np.ndarray:
    """A soft edge between the two tones of a pattern."""
    return 1 / (1 + np.exp(-6 * wave))
