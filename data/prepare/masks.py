"""Masks converted to PNG by several processes, and a check of images with their masks."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from data.io import one_opencv_thread, read_image, write_label
from data.label_map import LabelMap
from data.layouts import Reader, Sample
from utils.errors import UserError

T = TypeVar("T")


def write_masks(folder: Path, items: Mapping[str, T], draw: Callable[[T], np.ndarray], workers: int, title: str) -> int:
    """Writes <folder>/<name>.png, the mask [H, W] that `draw` returns, for each item; returns the number written.

    Existing files are kept. `draw` runs in `workers` processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = set(os.listdir(folder))
    todo = [name for name in items if f"{name}.png" not in done]
    with ProcessPoolExecutor(workers, initializer=one_opencv_thread) as pool:
        written = pool.map(partial(_write, folder, draw), todo, [items[name] for name in todo], chunksize=32)
        list(tqdm(written, total=len(todo), desc=title, leave=False, disable=None))
    return len(todo)


def _write(folder: Path, draw: Callable[[T], np.ndarray], name: str, item: T) -> None:
    write_label(folder / f"{name}.png", draw(item))


def read_mapped(read: Reader, label_map: LabelMap, path: Path) -> np.ndarray:
    """The label [H, W] of a file under a label map. Raises UserError for values that are not allowed."""
    return label_map(read(path), where=str(path))


def check_pairs(samples: Sequence[Sample], label_map: LabelMap, title: str) -> None:
    """Raises UserError for the first unreadable image or mask, unknown mask value, or mask of another size."""

    def check(sample: Sample) -> None:
        assert sample.label, sample
        size, label = read_image(sample.image).shape[:2], read_mapped(sample.read_label, label_map, sample.label)
        if label.shape != size:
            shown = f"{label.shape[1]}x{label.shape[0]} pixels, but {sample.image} has {size[1]}x{size[0]}"
            raise UserError(f"{sample.label}: {shown}")

    with ThreadPoolExecutor() as pool:
        list(tqdm(pool.map(check, samples), total=len(samples), desc=title, leave=False, disable=None))
