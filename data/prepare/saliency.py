"""Saliency maps for a folder of images: published post-processing, and an estimator without a network."""

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

# RGB images uint8 [H, W, 3] of any sizes -> probabilities float32 [H, W] in 0..1; slow parts may use the pool
Estimator = Callable[[Sequence[np.ndarray], Executor], Sequence[np.ndarray]]

SMALLEST = 0.01  # smallest area of a region and of a mask, as a share of the image
BATCH = 8
COLOURS = 5  # components of GrabCut's colour models
SHOWN = 8  # images of the overview
SETTINGS, NO_MASK, OVERVIEW = "saliency.json", "no_mask.txt", "overview.jpg"


def object_mask(probability: np.ndarray) -> np.ndarray | None:
    """MaskContrast's post-processing: float [H, W] -> uint8 [H, W] of 0 and 255; None without an object.

    Foreground is above 0.5. Each contour of the full hierarchy, including those of holes, is filled; filled areas below
    1 % of the image become background, so that a small hole also removes its border. A mask below 1 % is discarded.
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
    """Spectral residual (Hou and Zhang, CVPR 2007), summed over Lab channels, with a Gaussian centre prior.

    uint8 [H, W, 3] -> float32 [h, w], longer side 64. The residual is the log amplitude minus its local mean.
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
    """GrabCut (Rother et al., 2004) from the spectral residual: its top 10 % are object, its bottom 20 % background.

    uint8 [H, W, 3] -> float32 [H, W]: 1 inside the object, 0 outside, between 0 and 1 at its border.
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
    cv2.setRNGSeed(0)  # per thread; used by GrabCut's k-means
    cv2.grabCut(small, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)


def spectral(images: Sequence[np.ndarray], pool: Executor) -> list[np.ndarray]:
    """An Estimator without weights."""
    return list(pool.map(spectral_object, images))


def estimate_folder(
    images: Path, to: Path, estimator: Estimator, *, raw: bool, settings: dict[str, Any], workers: int
) -> tuple[int, int]:
    """Writes <to>/<name>.png for all images of a folder; returns the number of images with and without a mask.

    Maps are 0 and 255 from `object_mask` or, with `raw`, probabilities in 256 grey levels. Existing maps are kept;
    no_mask.txt lists images without a mask. Raises UserError if the folder holds maps with other `settings`.
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
    """Records the settings in the folder. Raises UserError if it holds maps with other settings."""
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
    """Writes overview.jpg: images, their maps, and the kept regions."""
    columns = []
    for path in paths:
        image, file = read_image(path), to / f"{path.stem}.png"
        mask = read_label(file) if file.exists() else np.zeros(image.shape[:2], np.uint8)
        columns.append([plain(image), plain(np.repeat(mask[..., None], 3, 2)), spotlight(image, mask)])
    picture = sheet(columns, ("image", "saliency", "kept part"), f"the first images; all black: see {NO_MASK}", ())
    write_picture(to / OVERVIEW, picture)
