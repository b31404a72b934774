"""Every reader of files, given damaged ones: it reads something, or raises UserError in one line, and nothing else.

    python -m tests.fuzz                       400 damaged copies for each reader, about two minutes
    python -m tests.fuzz --count 5000 --seed 1

prints a line per reader, and with exit status 1 the first error of another kind with its damaged file.
"""

import argparse
import base64
import contextlib
import gzip
import io
import json
import resource
import sys
import tempfile
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from data.classes import ClassList, load_split, load_task, read_classes
from data.embeddings import read_table, write_table
from data.incremental.exemplars import Candidate, read_memory, write_memory
from data.io import read_array, read_image, read_label, read_mask, write_array, write_grey, write_label, write_picture
from data.mat import read_context, read_sbd
from data.prepare.annotations import read_labelme
from data.prepare.class_files import read_colors
from data.prepare.coco import read_drawings
from data.weakshot.tags import read_tags
from data.word_files import read_words
from models.weights import read_weights
from utils import checkpoint
from utils.cluster_names import read_cluster_names
from utils.config.reader import load_config
from utils.errors import UserError
from utils.report.results import find_stages, read_history

SPARE = 4 << 30  # bytes of memory beyond those in use: a damaged header may ask for any number


class Reader(NamedTuple):
    write: Callable[[Path], Any]  # a good file
    read: Callable[[Path], Any]
    name: str  # of the file, or the end of it
    text: bool = False  # characters are damaged rather than bits

    @property
    def file(self) -> str:
        return f"file{self.name}" if self.name.startswith(".") else self.name


def _image() -> np.ndarray:
    y, x = np.mgrid[:24, :31]
    return np.stack([8 * x, 9 * y, 4 * (x + y)], -1).astype(np.uint8)


def _legacy(path: Path) -> None:
    content = {"state_dict": {"a": torch.ones(3)}, "args": Namespace(lr=1.0), "best": np.float64(0.5)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _words(path: Path) -> None:
    rows = "".join(
        f"{name} {' '.join(f'{i + n / 7:.3f}' for n in range(5))}\n" for i, name in enumerate(("cat", "dog"))
    )
    path.write_bytes(gzip.compress(rows.encode()) if path.suffix == ".gz" else rows.encode())


def _binary_words(path: Path) -> None:
    rows = (name.encode() + b" " + np.arange(5, dtype="<f4").tobytes() + b"\n" for name in ("cat", "dog"))
    path.write_bytes(b"2 5\n" + b"".join(rows))


def _coco(path: Path) -> None:
    things = [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": {"size": [12, 9], "counts": [8, 100]}},
    ]
    image = {"id": 7, "file_name": "7.jpg", "height": 12, "width": 9}
    path.write_text(json.dumps({"images": [image], "categories": [{"id": 3, "name": "cat"}], "annotations": things}))


def _labelme(path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(np.ones((3, 4), np.uint8)).save(png, "PNG")
    shapes = [
        {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]]},
        {"label": "dog", "points": [[2, 2]], "shape_type": "mask", "mask": base64.b64encode(png.getvalue()).decode()},
    ]
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": 12, "imageWidth": 9}))


def _draw(path: Path) -> None:
    for draw in read_labelme({path.stem: path}).draw.values():
        draw((12, 9))


def _stage(path: Path) -> None:
    path.write_text(json.dumps({"miou": 0.5, "per_class": {"cat": 0.5}, "config_sha256": "0"}))
    (path.parent / "config.yaml").write_text("system: probe\n")


def _class_list(path: Path) -> None:
    path.write_text("[background, cat, dog, horse]\n")


def _beside_classes(text: str) -> Callable[[Path], None]:
    """A file in a folder that has classes.yaml, too."""

    def write(path: Path) -> None:
        _class_list(path.with_name("classes.yaml"))
        path.write_text(text)

    return write


CLASSES = ClassList(("background", "cat", "dog", "horse"))
CONFIG = "system: ncdss\nseed: 3\ndata: {image_size: 32, root: x}\nbasic:\n  epochs: 3\n  milestones: [1]\n  lr: 1e-2\n"
HISTORY = '{"step": 1, "epoch": 1, "train": {"loss": 0.5}}\n{"step": 3, "epoch": 1, "val": {"miou": 0.1}}\n'
STATE = {"model": {"a": torch.arange(6.0), "b": torch.ones(2)}, "progress": {"step": 3}}
WIDE = np.arange(744, dtype=np.uint16).reshape(24, 31)
READERS: dict[str, Reader] = {
    "checkpoint": Reader(lambda p: checkpoint.save(p, STATE), checkpoint.load, ".pth"),
    "weights, old format": Reader(_legacy, read_weights, ".pth"),
    "configuration": Reader(lambda p: p.write_text(CONFIG), lambda p: load_config([str(p)], ""), ".yaml", True),
    "class list": Reader(_class_list, read_classes, ".yaml", True),
    "split": Reader(_beside_classes("novel: [cat, 2]\n"), lambda p: load_split(str(p), str(p.parent)), ".yaml", True),
    "task": Reader(
        _beside_classes("steps: [[cat], [2, horse]]\n"), lambda p: load_task(str(p), str(p.parent)), ".yaml", True
    ),
    "image list": Reader(lambda p: p.write_text("a\nb\n2007_000032\n"), checkpoint.read_list, ".txt", True),
    "metrics of a stage": Reader(_stage, lambda p: find_stages([p.parent]), "metrics.json", True),
    "history": Reader(lambda p: p.write_text(HISTORY), read_history, ".jsonl", True),
    "exemplars": Reader(lambda p: write_memory(p, {1: [Candidate("a", (1, 2))]}, "xyz"), read_memory, ".json", True),
    "COCO annotations": Reader(_coco, lambda p: list(read_drawings(p)), ".json", True),
    "LabelMe": Reader(_labelme, _draw, ".json", True),
    "classes by colour": Reader(lambda p: p.write_text("cat,1,2,3\ndog,4,5,6\n"), read_colors, ".csv", True),
    "tags of images": Reader(
        lambda p: p.write_text('a,"cat;dog"\nb,2\nc,horse,dog\n'), lambda p: read_tags(p, CLASSES), ".csv", True
    ),
    "names of clusters": Reader(
        lambda p: p.write_text("pseudo_labels: 5a\n1: dog\n2: drop\n"),
        lambda p: read_cluster_names(p.parent),
        "clusters.yaml",
        True,
    ),
    "photograph, JPEG": Reader(lambda p: write_picture(p, _image()), read_image, ".jpg"),
    "photograph, PNG": Reader(lambda p: cv2.imwrite(str(p), _image()), read_image, ".png"),
    "mask": Reader(lambda p: write_label(p, _image()[..., 0] % 4), read_label, ".png"),
    "mask, 16 bits": Reader(lambda p: write_label(p, WIDE), read_label, ".png"),
    "saliency": Reader(lambda p: write_grey(p, _image()[..., 0]), lambda p: read_mask(p, one_sided=True), ".png"),
    "SBD": Reader(
        lambda p: savemat(p, {"GTcls": {"Segmentation": _image()[..., 0]}}, do_compression=True), read_sbd, ".mat"
    ),
    "Pascal-Context": Reader(lambda p: savemat(p, {"LabelMap": WIDE}), read_context, ".mat"),
    "matrix": Reader(lambda p: write_array(p, np.arange(6).reshape(2, 3)), read_array, ".npy"),
    "table of word vectors": Reader(lambda p: write_table(p, ["cat", "dog"], np.ones((2, 3))), read_table, ".npz"),
    "word vectors, text": Reader(_words, lambda p: read_words(p, ["cat", "dog"]), ".txt", True),
    "word vectors, gzip": Reader(_words, lambda p: read_words(p, ["cat", "dog"]), ".gz"),
    "word vectors, binary": Reader(_binary_words, lambda p: read_words(p, ["cat", "dog"]), ".bin"),
}


def damaged(content: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """A copy with one to four of: bits flipped, a part cut out, doubled, set to zero, or replaced; or cut short."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start, length = int(rng.integers(0, len(made) + 1)), int(rng.integers(1, 16))
        part = slice(start, start + length)
        kind = int(rng.integers(6))
        if kind == 0 and start < len(made):
            made[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del made[part]
        elif kind == 2:
            made[start:start] = made[part]
        elif kind == 3:
            made[part] = bytes(len(made[part]))
        elif kind == 4:
            letters = b"{}[]:,\"-&*!#%@|>'\\?~.eE0123456789 \n\ttruenal" if text else bytes(range(256))
            made[part] = bytes(rng.choice(list(letters), len(made[part])).tolist())
        elif kind == 5 and rng.random() < 0.2:
            del made[start:]
    return bytes(made)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """At most SPARE more of it than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(reader: Reader, folder: Path, count: int, seed: int) -> tuple[int, int]:
    """(damaged files that were read, refused); any error but UserError in one line is raised."""
    path, outcomes = folder / reader.file, {True: 0, False: 0}
    reader.write(path)
    good, rng = path.read_bytes(), np.random.default_rng(seed)
    reader.read(path)
    with warnings.catch_warnings(), little_memory():
        warnings.simplefilter("ignore")
        for _ in range(count):
            path.write_bytes(damaged(good, rng, reader.text))
            try:
                reader.read(path)
                outcomes[True] += 1
            except UserError as error:
                if "\n" in str(error) or len(str(error)) > 600:
                    raise AssertionError(f"not one line: {error}") from error
                outcomes[False] += 1
    return outcomes[True], outcomes[False]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="damaged files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    options = parser.parse_args(argv)
    failed = 0
    for name, reader in READERS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                read, refused = fuzz(reader, Path(folder), options.count, options.seed)
                print(f"{name:24} {read:5} read {refused:5} refused", flush=True)
            except Exception:  # whatever it is, it is a finding
                failed += 1
                kept = Path(tempfile.gettempdir()) / f"fuzz_{name.replace(' ', '_').replace(',', '')}"
                kept.write_bytes((Path(folder) / reader.file).read_bytes())
                print(f"{name:24} FAILED, see {kept}", flush=True)
                traceback.print_exc()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
