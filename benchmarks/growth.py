"""How time and memory grow with the number of images, of everything that touches each of them outside the networks.

A process of its own for each figure: processor seconds, and MiB beyond what it held before. A part that is linear takes
ten times as long in each column; the evaluation keeps one matrix, however many images there are.

    python -m benchmarks.growth
    python -m benchmarks.growth --items 1000 10000
"""

import argparse
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

from benchmarks.clustering import draw
from benchmarks.weakshot import peak
from data.io import write_label
from data.label_map import LabelMap
from data.layouts import VOC, index_samples
from data.lists import values_in
from utils.config.reader import load_config
from utils.inputs import DataFiles, changed_data
from utils.measure.clustering import cluster_prototypes
from utils.measure.confusion import count
from utils.measure.ranking import split_by_score
from utils.report.tables import table

ITEMS = (1_000, 10_000, 100_000)
LINKS = 500  # names of one file: file systems limit how many it may have
SIDE = 64  # pixels of a mask; larger ones take longer, each by itself
OUTPUTS, BATCH = 26, 16  # of the evaluation
FEATURES, CLUSTERS = 256, 40  # of the prototypes
CONFIG = "configs/discovery/pascal.yaml"
HEADING = "work, by number of images"


class Cost(NamedTuple):
    seconds: float
    mib: float


# ---- the parts


def find_files(root: Path, items: int) -> list:
    """The index of a list: paths of image and mask of every id."""
    ids = [name.removesuffix(".png") for name in sorted(os.listdir(root / "SegmentationClassAug"))[:items]]
    return index_samples(root, ids, fields=("image", "label"), layout=VOC, looked_for=DataFiles())


def scan(root: Path, items: int, known: bool) -> None:
    """The classes of every mask; known ones are not read again."""
    samples, kept = find_files(root, items), root / f"presence_{items}.json"
    if not known:
        kept.unlink(missing_ok=True)
    values_in(samples, kept, LabelMap.from_pairs({value: value for value in range(OUTPUTS)}))


def fingerprint(root: Path, items: int) -> None:
    """What a finished stage is compared by: a record of all its files, and their comparison."""
    files, cfg = DataFiles(), load_config([CONFIG, f"data.root={root}"], "")
    files.add(path for sample in find_files(root, items) for path in (sample.image, sample.label))
    files.write(root / f"data_{items}.json", cfg)
    assert changed_data(root / f"data_{items}.json", cfg) is None


def evaluate(_root: Path, items: int) -> None:
    """Both confusion matrices of predictions that are there already."""
    maps = torch.randint(0, OUTPUTS, (BATCH, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    label = maps[:, 0].flip(0).byte()

    def predictions() -> Iterator[tuple[dict, torch.Tensor]]:
        for start in range(0, items, BATCH):
            yield {"label": label, "native": label, "index": torch.arange(start, start + BATCH)}, maps

    run: Any = SimpleNamespace(device=torch.device("cpu"))
    count(predictions(), (1, OUTPUTS, OUTPUTS), run, native=SimpleNamespace(native=None))


def cluster(_root: Path, items: int) -> None:
    """PCA and k-means of one prototype per image."""
    cluster_prototypes(draw(items, FEATURES, CLUSTERS)[0], CLUSTERS, seed=0)


def rank(_root: Path, items: int) -> None:
    """The split into clean and unclean images, by the share of each cluster."""
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
    """A data root in the VOC layout: many names for a few files, which takes no space."""
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
    """Processor seconds of a call in a fork, and its peak beyond what the fork began with (Linux)."""
    receive, send = (context := multiprocessing.get_context("fork")).Pipe(duplex=False)
    gc.collect()
    gc.freeze()  # else the fork's collector copies the pages of all that is there
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


@contextmanager
def files(items: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), items)
        yield Path(folder)


def measure(items: tuple[int, ...] = ITEMS) -> list[dict[str, Any]]:
    """Every part at every number of images, as plain values."""
    with files(max(items)) as root:
        return [
            {"name": name, "costs": [in_own_process(partial(part, root, number))._asdict() for number in items]}
            for name, part in PARTS.items()
        ]


def rows(found: list[dict[str, Any]], items: tuple[int, ...] = ITEMS) -> list[list[str]]:
    """The table of `measure`, its heading first."""
    heading = [HEADING, *(f"{number}: s" for number in items), *(f"{number}: MiB" for number in items)]
    return [heading, *([row["name"], *_shown(row["costs"])] for row in found)]


def _shown(costs: list[dict[str, float]]) -> list[str]:
    return [f"{cost['seconds']:.2f}" for cost in costs] + [f"{cost['mib']:.0f}" for cost in costs]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS), help="numbers of images")
    items = tuple(parser.parse_args(argv).items)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(table(rows(measure(items), items)))


if __name__ == "__main__":
    main()
