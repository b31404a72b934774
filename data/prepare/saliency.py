"""Saliency maps of any images: the published post-processing, a map without a network, and a folder of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data.io import find_images, read_image, read_label, write_grey, write_picture
from data.predictions import require_folder
from utils.checkpoint import read_json, read_list, write_json, write_list
from utils.errors import UserError
from utils.report.pictures import fit_size, plain, sheet, spotlight

# RGB images uint8 [H, W, 3] of any sizes -> one probability float32 [H, W] in 0..1 each; the pool is for slow parts
Estimator = Callable[[Sequence[np.ndarray], Executor], Sequence[np.ndarray]]

SMALLEST = 0.01  # share of the image below which a region, and a whole mask, does not count
BATCH = 8
COLOURS = 5  # by which GrabCut models object and background
SHOWN = 8  # images of the overview
SETTINGS, NO_MASK, OVERVIEW = "saliency.json", "no_mask.txt", "overview.jpg"


def object_mask(probability: np.ndarray) -> np.ndarray | None:
    """The post-processing of MaskContrast's masks. float [H, W] -> uint8 [H, W] of 0 and 255; None: no object.

    Above 0.5 is foreground. Every contour of the full hierarchy, so of holes and islands too, is filled by itself,
    and its pixels become background when they are under 1 % of the image: a small hole takes its rim along. A mask
    that is left with under 1 % is none.
    """
    mask = np.where(probability > 0.5, np.uint8(255), np.uint8(0))
    least = SMALLEST * mask.size
    contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        filled = np.zeros((height, width), np.uint8)
        cv2.drawContours(filled, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
        if np.count_nonzero(filled) < least:
            mask[y : y + height, x : x + width][filled > 0] = 0
    return mask if np.count_nonzero(mask) >= least else None


def spectral_residual(image: np.ndarray) -> np.ndarray:
    """Hou and Zhang (CVPR 2007), summed over Lab channels. uint8 [H, W, 3] -> float32 [h, w], longer side 64.

    What the logarithm of the spectrum has beyond its local mean is what stands out; weighted to the centre here, where
    photographs have their objects.
    """
    height, width = fit_size(image.shape, 64)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    energy = np.zeros((height, width), np.float32)
    for channel in cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2LAB)):
        spectrum = np.fft.fft2(channel.astype(np.float32))
        amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
        residual = amplitude - cv2.blur(amplitude, (3, 3))
        energy += np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))).astype(np.float32) ** 2
    y, x = np.linspace(-2, 2, height)[:, None], np.linspace(-2, 2, width)  # in standard deviations
    centre = np.exp(-(x**2 + y**2) / 2).astype(np.float32)
    return centre * cv2.GaussianBlur(energy, (0, 0), 5)


def spectral_object(image: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al., 2004) on the spectral residual: its top tenth is object, its last fifth background.

    uint8 [H, W, 3] -> float32 [H, W], 1 in the object and 0 outside, between them on its border.
    """
    height, width = image.shape[:2]
    size = tuple(min(sides) for sides in zip(fit_size(image.shape, 128), (height, width), strict=True))
    saliency = cv2.resize(spectral_residual(image), size[::-1], interpolation=cv2.INTER_LINEAR)
    surely_out, middle, surely_in = np.quantile(saliency, (0.2, 0.5, 0.9))
    labels = np.where(saliency > middle, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[saliency < surely_out] = cv2.GC_BGD
    labels[saliency > surely_in] = cv2.GC_FGD
    if np.count_nonzero(saliency > middle) < COLOURS:
        return np.zeros((height, width), np.float32)
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    cv2.setRNGSeed(0)  # of this thread, for k-means inside
    cv2.grabCut(small, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)


def spectral(images: Sequence[np.ndarray], pool: Executor) -> list[np.ndarray]:
    """The estimator without weights."""
    return list(pool.map(spectral_object, images))


def estimate_folder(
    images: Path, to: Path, estimator: Estimator, *, raw: bool, settings: dict[str, Any], workers: int
) -> tuple[int, int]:
    """Write <to>/<name>.png for every image of a folder; returns how many have a mask and how many have none.

    0 and 255 after `object_mask`, or with `raw` the probability in 256 grey levels. Goes on where it stopped: existing
    files are kept, images without a mask are remembered in no_mask.txt. `settings` tell how the maps are made;
    UserError when the folder holds maps of others.
    """
    paths = find_images([images])
    if images.resolve() == to.resolve():
        raise UserError(f"--to {to}: the folder of the images themselves; choose another one")
    require_folder(to)
    _claim(to, settings | {"raw": raw})
    without = read_list(to / NO_MASK) if (to / NO_MASK).exists() else []
    done = {path.stem for path in to.glob("*.png")} | set(without)
    todo = [path for path in paths if path.stem not in done]
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(todo), leave=False, disable=None) as bar:
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            maps = estimator(list(pool.map(read_image, batch)), pool)
            written = list(pool.map(partial(_write, to, raw), batch, maps))
            if not all(written):
                without += [path.stem for path, has_mask in zip(batch, written, strict=True) if not has_mask]
                write_list(to / NO_MASK, without)
            bar.update(len(batch))
    _show(to, paths[:SHOWN])
    missing = {path.stem for path in paths} & set(without)
    return len(paths) - len(missing), len(missing)


def _claim(to: Path, settings: dict[str, Any]) -> None:
    """Maps of two kinds in one folder would not be noticed later."""
    if (to / SETTINGS).exists():
        before = read_json(to / SETTINGS)
        for name, value in settings.items():
            if before.get(name) != value:
                made = f"holds maps made with {name}={before.get(name)}, now it is {value}"
                raise UserError(f"--to {to}: {made}; choose another folder")
    elif to.is_dir() and any(path.suffix == ".png" or path.name == OVERVIEW for path in to.iterdir()):
        raise UserError(f"--to {to}: holds pictures that were not made here (no {SETTINGS}); choose another folder")
    write_json(to / SETTINGS, settings)


def _write(to: Path, raw: bool, path: Path, probability: np.ndarray) -> bool:
    values = np.round(255 * probability).astype(np.uint8) if raw else object_mask(probability)
    if values is not None:
        write_grey(to / f"{path.stem}.png", values)
    return values is not None


def _show(to: Path, paths: list[Path]) -> None:
    """One picture: images, their maps, and what the maps keep."""
    columns = []
    for path in paths:
        image, file = read_image(path), to / f"{path.stem}.png"
        mask = read_label(file) if file.exists() else np.zeros(image.shape[:2], np.uint8)
        columns.append([plain(image), plain(np.repeat(mask[..., None], 3, 2)), spotlight(image, mask)])
    picture = sheet(columns, ("image", "saliency", "kept part"), f"the first images; all black: see {NO_MASK}", ())
    write_picture(to / OVERVIEW, picture)
