"""The demo data set: drawn objects of twenty classes on textured backgrounds, in VOC's layout, deterministic."""

import json
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data.io import one_opencv_thread, write_label
from data.prepare.demo_shapes import CLASSES, TEXTURES, Outline, texture
from utils.checkpoint import read_json, write_list
from utils.errors import UserError

OVERSAMPLE = 2  # objects are drawn at this scale and shrunk, for smooth edges
MARKER = "demo.json"
DRAWING = 2  # version of the images; a data set of another version is rejected


@dataclass(frozen=True)
class DemoOptions:
    train: int = 960
    val: int = 200
    size: int = 128  # pixels
    seed: int = 0
    saliency_error: float = 0.25  # 0: perfect saliency maps; 1: mostly wrong
    rough_error: float = 0.8  # saliency_error of saliency_rough/, a second, worse estimate
    texture_swap: float = 0.25  # probability that an object has a random texture instead of its class's
    color_spread: float = 0.35  # largest deviation of an object's hue from its class's hue (0.5: any hue)


def build_demo(root: Path, options: DemoOptions | None = None, workers: int = 2) -> None:
    """Draws the data set into `root`, which appears when complete; returns at once if it exists with these options.

    Raises UserError if `root` holds anything else.
    """
    options = options or DemoOptions()
    if is_drawn(root, options):
        return
    if (root / MARKER).exists():
        raise UserError(f"{root}: holds a demo set with other options; remove it or choose another --root")
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root}: is not empty and not a demo set; choose another --root")
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        jobs = [("train", i) for i in range(options.train)] + [("val", i) for i in range(options.val)]
        (building / "images").mkdir()
        with ProcessPoolExecutor(workers, initializer=one_opencv_thread) as pool:
            drawn = pool.map(partial(_draw_files, building, options), jobs, chunksize=16)
            list(tqdm(drawn, total=len(jobs), desc="drawing", leave=False, disable=None))
        write_list(building / "sets" / "trainaug.txt", [image_id(*job) for job in jobs if job[0] == "train"])
        write_list(building / "sets" / "val.txt", [image_id(*job) for job in jobs if job[0] == "val"])
        (building / MARKER).write_text(json.dumps(_about(options)))
        building.chmod(0o755)
        if root.exists():
            root.rmdir()
        os.replace(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def is_drawn(root: Path, options: DemoOptions) -> bool:
    """Whether `root` holds the data set, drawn with these options."""
    return (root / MARKER).exists() and read_json(root / MARKER) == _about(options)


def _about(options: DemoOptions) -> dict[str, Any]:
    return {"drawing": DRAWING, **asdict(options)}


def image_id(part: str, index: int) -> str:
    return f"{part}_{index:05d}"


def _draw_files(root: Path, options: DemoOptions, job: tuple[str, int]) -> None:
    part, index = job
    rng = np.random.default_rng([options.seed, part == "val", index])
    image, label, masks = draw_scene(rng, options, index % len(CLASSES))
    saliency = estimate_saliency(rng, masks, options.saliency_error)
    second = np.random.default_rng(
        [options.seed, part == "val", index, 1]
    )  # what the first draws does not depend on it
    rough = estimate_saliency(second, masks, options.rough_error)
    name = image_id(part, index)
    cv2.imwrite(str(root / "images" / f"{name}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    write_label(root / "SegmentationClassAug" / f"{name}.png", label)
    write_label(root / "saliency_supervised_model" / f"{name}.png", saliency)
    write_label(root / "saliency_rough" / f"{name}.png", rough)


def draw_scene(
    rng: np.random.Generator, options: DemoOptions, dominant: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(image [S, S, 3], label [S, S], mask [S, S] of each object) of one scene.

    A large object of class `dominant` (from 0), and up to two smaller objects of random classes behind it.
    """
    size = options.size
    image = ground(rng, size)
    extras = rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15])
    classes = [*rng.integers(len(CLASSES), size=extras).tolist(), dominant]
    label = np.zeros((size, size), np.uint8)
    masks = []
    for order, kind in enumerate(classes):
        is_main = order == len(classes) - 1
        radius = size * (rng.uniform(0.27, 0.43) if is_main else rng.uniform(0.13, 0.2))
        centre = size * (rng.uniform(0.3, 0.7, 2) if is_main else rng.uniform(0.1, 0.9, 2))
        alpha, color = draw_object(rng, options, kind, centre, radius)
        image = image * (1 - alpha[..., None]) + color * alpha[..., None]
        mask = alpha > 0.5
        label[mask] = kind + 1
        masks.append(mask)
    label[_edges(label)] = 255
    noisy = image + rng.normal(0, 5, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), label, masks


def draw_object(
    rng: np.random.Generator, options: DemoOptions, kind: int, centre: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """(alpha [S, S] in 0..1, colour [S, S, 3]) of one object, randomly bent, stretched, rotated and shaded."""
    outline, own_texture = list(CLASSES.values())[kind]
    angle = rng.normal(0, 0.45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([rng.choice([-1, 1]), 1])
    warp = radius * turn @ np.diag(rng.uniform(0.8, 1.2, 2)) @ mirror
    alpha = _raster(_bend(outline(), rng), warp, centre, options.size)
    y, x = np.mgrid[: options.size, : options.size] + 0.5
    u, v = np.tensordot(np.linalg.inv(warp), np.stack([x - centre[0], y - centre[1]]), 1)
    worn = str(rng.choice(TEXTURES)) if rng.random() < options.texture_swap else own_texture
    pattern = texture(worn, u, v, rng)[..., None]
    hue = (kind * 0.618 + rng.uniform(-1, 1) * options.color_spread) % 1
    light = _rgb(hue, rng.uniform(0.35, 0.9), rng.uniform(0.75, 1))
    dark = _rgb((hue + rng.normal(0, 0.06)) % 1, rng.uniform(0.5, 1), rng.uniform(0.25, 0.55))
    side = rng.uniform(0, 2 * np.pi)
    shade = 1 - 0.22 * (u * np.cos(side) + v * np.sin(side)) - 0.12 * np.hypot(u, v)
    return alpha, (light * pattern + dark * (1 - pattern)) * shade.clip(0.45, 1.25)[..., None]


def _bend(outline: Outline, rng: np.random.Generator) -> Outline:
    """The outline with a random low-frequency wave added, the same for all parts."""
    along, across = rng.normal(0, 0.05, (2, 2))
    phase = rng.uniform(0, 2 * np.pi, 2)

    def moved(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        shift = [along[i] * np.sin(3 * y + phase[i]) + across[i] * np.sin(3 * x) for i in (0, 1)]
        return points + np.stack(shift, axis=1)

    return [(sign, moved(points)) for sign, points in outline]


def _raster(outline: Outline, warp: np.ndarray, centre: np.ndarray, size: int) -> np.ndarray:
    """Coverage [S, S] of an outline in 0..1."""
    big = np.zeros((size * OVERSAMPLE, size * OVERSAMPLE), np.uint8)
    for sign, points in outline:
        pixels = (points @ warp.T + centre) * OVERSAMPLE
        cv2.fillPoly(big, [np.round(pixels * 16).astype(np.int32)], 255 if sign > 0 else 0, shift=4)
    return cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA) / 255.0


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background [S, S, 3] in muted colours, independent of the classes."""
    a, b = (_rgb(rng.random(), rng.uniform(0.08, 0.4), rng.uniform(0.3, 0.85)) for _ in range(2))
    y, x = np.mgrid[:size, :size] / size
    direction = rng.uniform(0, np.pi)
    along = x * np.cos(direction) + y * np.sin(direction)
    kind = rng.integers(4)
    if kind == 0:
        field = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        field = 0.5 + 0.5 * np.sin(rng.uniform(15, 50) * along)
    else:
        field = _clouds(rng, size, cells=3 if kind == 2 else 14)
    field = 0.75 * field + 0.25 * _clouds(rng, size, cells=6)
    return a * field[..., None] + b * (1 - field[..., None])


def _clouds(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in 0..1."""
    field = cv2.resize(rng.random((cells, cells)), (size, size), interpolation=cv2.INTER_CUBIC)
    return (field - field.min()) / np.ptp(field)


def estimate_saliency(rng: np.random.Generator, masks: list[np.ndarray], error: float) -> np.ndarray:
    """A simulated saliency map of the objects, uint8 0/1, with ragged borders, leaks, and missed objects and parts."""
    size = len(masks[-1])
    found = np.zeros((size, size), bool)
    for order, mask in enumerate(masks):
        missed = rng.random() < error * (0.25 if order == len(masks) - 1 else 1.5)
        if not missed:
            found |= _without_part(rng, mask) if rng.random() < error else mask
    if rng.random() < 1.5 * error:
        spot = np.flatnonzero(found) if found.any() else np.arange(size * size)
        y, x = divmod(int(rng.choice(spot)), size)
        axes = (int(size * rng.uniform(0.08, 0.2)), int(size * rng.uniform(0.06, 0.14)))
        leak = cv2.ellipse(np.zeros((size, size), np.uint8), (x, y), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        found |= leak.astype(bool)
    soft = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 1 + 4 * error)
    return (soft + 1.2 * error * (_clouds(rng, size, cells=20) - 0.5) > 0.5).astype(np.uint8)


def _without_part(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """The mask on one side of a random line through it."""
    if not mask.any():
        return mask
    y, x = np.nonzero(mask)
    angle = rng.uniform(0, 2 * np.pi)
    height = np.sin(angle) * np.arange(len(mask))[:, None] + np.cos(angle) * np.arange(len(mask))[None]
    return mask & (height > np.quantile(height[y, x], rng.uniform(0.2, 0.5)))


def _edges(label: np.ndarray) -> np.ndarray:
    """Pixels with more than one label in their 3x3 neighbourhood, the void border of VOC masks."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(label, kernel) != cv2.erode(label, kernel)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB in 0..255 from hue, saturation, value in 0..1."""
    sector = (hue * 6 + np.array([0, 4, 2])) % 6
    return 255 * value * (1 - saturation * (1 - np.clip(np.abs(sector - 3) - 1, 0, 1)))
