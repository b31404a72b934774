"""Label maps of a network as PNGs: its outputs first, the class numbers of the masks once these are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm.contrib.concurrent import thread_map

from data.dataset import SegmentationDataset
from data.io import read_label, write_label
from utils import dist
from utils.checkpoint import settle
from utils.labels import is_wide
from utils.measure.confusion import Save


def map_writer(folder: Path, images: SegmentationDataset, num_values: int) -> Save:
    """Writes the map of an image, values 0 to num_values - 1, as <folder>/<id>.png."""
    kind = np.uint16 if is_wide(num_values) else np.uint8

    def save(index: int, values: np.ndarray) -> None:
        write_label(folder / f"{images.samples[index].id}.png", values.astype(kind), settled=False)

    return save


def relabel(source: Path, target: Path, table: Callable[[str], np.ndarray]) -> None:
    """Write <source>/<id>.png to <target> with each value v replaced by table(id)[v]; the folders may be the same.

    All processes call it once each has written its maps.
    """
    dist.barrier()

    def write(path: Path) -> None:
        write_label(target / path.name, table(path.stem)[read_label(path)], settled=False)

    thread_map(write, dist.share(sorted(source.glob("*.png"))), desc=target.name, leave=False, disable=None)
    dist.barrier()
    if dist.is_main():
        settle(target)
