"""Prediction files: label maps of a network as PNG, and protection of files that another program wrote."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.contrib.concurrent import thread_map

from data.dataset import SegmentationDataset
from data.io import read_label, write_label
from data.video import is_video, video_maker
from utils import dist
from utils.checkpoint import settle
from utils.errors import UserError
from utils.labels import is_wide
from utils.measure.confusion import Save


def map_writer(folder: Path, images: SegmentationDataset, num_values: int) -> Save:
    """A function (image index, map [H, W]) that writes <folder>/<id>.png; values are 0 to num_values - 1."""
    kind = np.uint16 if is_wide(num_values) else np.uint8

    def save(index: int, values: np.ndarray) -> None:
        write_label(folder / f"{images.samples[index].id}.png", values.astype(kind), settled=False)

    return save


def relabel(source: Path, target: Path, table: Callable[[str], np.ndarray]) -> None:
    """Writes <source>/<id>.png to <target> with each value v replaced by table(id)[v]; the folders may be equal.

    All processes call it after they have written their maps.
    """
    dist.barrier()

    def write(path: Path) -> None:
        write_label(target / path.name, table(path.stem)[read_label(path)], settled=False)

    thread_map(write, dist.share(sorted(source.glob("*.png"))), desc=target.name, leave=False, disable=None)
    dist.barrier()
    if dist.is_main():
        settle(target)


def maker_of(path: Path) -> str:
    """The program that wrote a PNG, JPEG (data.io) or MP4 file (data.video); empty if the file does not name it."""
    if is_video(path):
        return video_maker(path)
    try:
        with Image.open(path) as image:
            named = image.info.get("Software") or image.info.get("comment") or ""
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""
    return named.decode(errors="replace") if isinstance(named, bytes) else str(named)


def require_free(outputs: Iterable[Path], inputs: Iterable[Path], maker: str) -> None:
    """Raises UserError if an output would replace an input, or a file that `maker` did not write.

    Compares files instead of names: links and case-insensitive file systems give one file several names.
    """
    given = {_file(path): path for path in inputs}
    for output in outputs:
        if not (output.is_symlink() or output.exists()):
            continue
        source = given.get(_file(output)) if output.exists() else None
        if source is not None:
            raise UserError(f"--to {output.parent}: {output} is an input ({source}); choose another folder with --to")
        if maker_of(output) != maker:
            raise UserError(f"--to {output.parent}: {output} is there and not made by {maker}; choose another folder")


def require_folder(path: Path) -> None:
    """Raises UserError if `path` or one of its parents is a file."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"--to {path}: {there} is a file; give a folder, there or to be made")


def _file(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
