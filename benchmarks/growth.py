"""Time and memory against the number of images, for all work outside the networks that touches each image.

Each figure comes from its own process: processor seconds, and MiB beyond what the process held at its start. Linear
work takes ten times as long in each column; the evaluation keeps one matrix for any number of images.
"""

import ctypes
import gc
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from data.io import write_label
from data.label_map import LabelMap
from data.layouts import VOC, index_samples
from data.lists import values_in
from utils.config.reader import load_config
from utils.inputs import DataFiles, changed_data
from utils.measure.clustering import cluster_prototypes
from utils.measure.confusion import count
from utils.measure.ranking import split_by_score

ITEMS = (1_000, 10_000, 100_000)
LINKS = 500  # names per file; file systems limit the number of hard links
SIDE = 64  # pixels of a mask
OUTPUTS, BATCH = 26, 16  # of the evaluation
FEATURES, CLUSTERS = 256, 40  # of the prototypes
CONFIG = "configs/discovery/pascal.yaml"
HEADING = "work, by number of images"


class Cost(NamedTuple):
    seconds: float
    mib: float


# ---- the parts


def find_files(root: Path, items: int) -> list:
    """Index of a list: paths of image and mask of every id."""
    ids = [name.removesuffix(".png") for name in sorted(os.listdir(root / "SegmentationClassAug"))[:items]]
    return index_samples(root, ids, fields=("image", "label"), layout=VOC, looked_for=DataFiles())


def scan(root: Path, items: int, known: bool) -> None:
    """Classes of every mask; `known` finds them in the file that the first scan wrote."""
    samples, kept = find_files(root, items), root / f"presence_{items}.json"
    if not known:
        kept.unlink(missing_ok=True)
    values_in(samples, kept, LabelMap.from_pairs({value: value for value in range(OUTPUTS)}))


def fingerprint(root: Path, items: int) -> None:
    """Records all files of a stage, and compares the record with the files."""
    files, cfg = DataFiles(), load_config([CONFIG, f"data.root={root}"], "")
    files.add(path for sample in find_files(root, items) for path in (sample.image, sample.label))
    files.write(root / f"data_{items}.json", cfg)
    assert changed_data(root / f"data_{items}.json", cfg) is None


def evaluate(_root: Path, items: int) -> None:
    """Confusion matrices at network and file resolution, from given predictions."""
    maps = torch.randint(0, OUTPUTS, (BATCH, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    label = maps[:, 0].flip(0).byte()

    def predictions() -> Iterator[tuple[dict, torch.Tensor]]:
        for start in range(0, items, BATCH):
            yield {"label": label, "native": label, "index": torch.arange(start, start + BATCH)}, maps

    run: Any = SimpleNamespace(device=torch.device("cpu"))
    count(predictions(), (1, OUTPUTS, OUTPUTS), run, native=SimpleNamespace(native=None))


def cluster(_root: Path, items: int) -> None:
    """PCA and k-means of one prototype per image."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((CLUSTERS, FEATURES)).astype(np.float32)[rng.integers(0, CLUSTERS, items)]
    points += rng.standard_normal((items, FEATURES), dtype=np.float32)
    cluster_prototypes(points / np.linalg.norm(points, axis=1, keepdims=True), CLUSTERS, seed=0)


def rank(_root: Path, items: int) -> None:
    """Split into clean and unclean images, balanced over the clusters."""
    numbers = random.Random(0)
    scores = [numbers.random() for _ in range(items)]
    split_by_score(
        [f"{place:06d}" for place in range(items)], scores, 0.5, [place % CLUSTERS for place in range(items)]
    )


PARTS: dict[str, Callable[[Path, int], Any]] = {
    "files of a list": find_files,
    "classes in masks, first time": partial(scan, known=False),
    "classes in masks, once more": partial(scan, known=True),
    "are the data the same?": fingerprint,
    "evaluation, both matrices": evaluate,
    "prototypes to clusters": cluster,
    "ranking": rank,
}


# ---- measuring


def make_files(root: Path, items: int) -> None:
    """A data root in the VOC layout: hard links to a few files, which take no space."""
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for folder, ending in (("JPEGImages", ".jpg"), ("SegmentationClassAug", ".png")):
        (root / folder).mkdir(parents=True)
        for place in range(items):
            path = root / folder / f"{place:06d}{ending}"
            if place % LINKS:
                os.link(root / folder / f"{place - place % LINKS:06d}{ending}", path)
            elif ending == ".jpg":
                cv2.imwrite(str(path), image)
            else:
                write_label(path, np.repeat(np.arange(SIDE, dtype=np.uint8)[:, None] % OUTPUTS, SIDE, axis=1))


def in_own_process(work: Callable[[], Any]) -> Cost:
    """Processor seconds and peak memory of a call in a forked process, beyond the memory at the fork (Linux)."""
    receive, send = (context := multiprocessing.get_context("fork")).Pipe(duplex=False)
    gc.collect()
    gc.freeze()  # otherwise the collector of the fork copies all pages
    process = context.Process(target=_measured, args=(work, send))
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def _measured(work: Callable[[], Any], send: Connection) -> None:
    seconds = []

    def timed() -> None:
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)

    mib = peak(timed)
    send.send(Cost(seconds[0], mib))


def peak(step: Callable[[], object]) -> float:
    """MiB that a call needs beyond what the process holds (Linux with glibc)."""
    status = Path("/proc/self/status")

    def read(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    ctypes.CDLL(None).malloc_trim(0)  # memory freed by earlier calls is not reused
    before = read("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    step()
    return (read("VmHWM:") - before) / 1024


@contextmanager
def files(items: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), items)
        yield Path(folder)


def measure(items: tuple[int, ...] = ITEMS) -> list[dict[str, Any]]:
    """Cost of every part at every number of images, as plain values."""
    with files(max(items)) as root:
        return [
            {"name": name, "costs": [in_own_process(partial(part, root, number))._asdict() for number in items]}
            for name, part in PARTS.items()
        ]


def rows(found: list[dict[str, Any]], items: tuple[int, ...] = ITEMS) -> list[list[str]]:
    """Table of the result of `measure`, heading first."""
    heading = [HEADING, *(f"{number}: s" for number in items), *(f"{number}: MiB" for number in items)]
    return [heading, *([row["name"], *_shown(row["costs"])] for row in found)]


def _shown(costs: list[dict[str, float]]) -> list[str]:
    return [f"{cost['seconds']:.2f}" for cost in costs] + [f"{cost['mib']:.0f}" for cost in costs]
