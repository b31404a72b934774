"""A data root for class discovery from the user's own photographs, some of them labelled."""

import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from data.io import find_images, orientation, read_image, voc_palette, write_label, write_picture
from data.prepare.annotations import Annotations
from data.prepare.folder_config import Facts
from utils.checkpoint import write_list, write_text
from utils.errors import UserError
from utils.labels import IGNORE

PARTS = ("images", "labels", "sets")  # folders that are rewritten each time
FEWEST = 4  # least number of labelled and of unlabelled photographs
SPLIT = "unknown"
SPLIT_TEXT = "novel: unknown  # no list of them, no labels: clusters are named by hand\n"


@dataclass(frozen=True)
class Photo:
    """A photograph with the pixels of each class number; None without labels."""

    path: Path
    size: tuple[int, int]  # height, width
    pixels: dict[int, int] | None = None


@dataclass(frozen=True)
class FolderSet:
    """The content of a new data root."""

    names: tuple[str, ...]
    photos: dict[str, Photo]
    lists: dict[str, list[str]]  # train, val, unlabelled
    kind: str
    without_photo: list[str]  # labels without a photograph

    def facts(self) -> Facts:
        """Statistics that determine the sizes in a configuration."""
        sides = [max(photo.size) for photo in self.photos.values()]
        areas = [height * width for height, width in (photo.size for photo in self.photos.values())]
        labelled = [(photo, photo.pixels) for photo in self.photos.values() if photo.pixels is not None]
        shares = [
            count / np.prod(photo.size) for photo, pixels in labelled for number, count in pixels.items() if number
        ]
        return Facts(
            train=len(self.lists["train"]),
            unlabelled=len(self.lists["unlabelled"]),
            side=int(np.median(sides)),
            area=int(np.median(areas)),
            object_share=float(np.median(shares)),
        )

    def table(self) -> list[list[str]]:
        """Number of images with each class in train and val, with a header row."""
        rows = [["class", "train", "val"]]
        for number, name in enumerate(self.names):
            if number:
                rows.append([name, *(str(self._showing(number, part)) for part in ("train", "val"))])
        rows.append(["images", *(str(len(self.lists[part])) for part in ("train", "val"))])
        return rows

    def _showing(self, number: int, part: str) -> int:
        return sum(number in (self.photos[name].pixels or {}) for name in self.lists[part])


def build_folder(
    root: Path,
    photos: Sequence[Path],
    annotations: Annotations,
    *,
    labels: Path | None = None,
    val: float = 0.2,
    seed: int = 0,
    workers: int = 2,
) -> FolderSet:
    """Writes images/ (links), labels/, sets/, classes.yaml, unknown.yaml and legend.jpg below `root`.

    Photographs without labels form the list `unlabelled`; a random share `val` of the others, drawn with `seed`, forms
    `val`. Everything is written to a temporary folder and moved when complete. Raises UserError for the first fault,
    and if a rewritten folder holds photographs, the `labels` of `annotations`, or files of another origin.
    """
    found = {_composed(path.stem): path for path in find_images(list(photos))}
    _require_own(root, [*found.values(), *([labels] if labels else [])])
    annotations = replace(annotations, draw={_composed(name): draw for name, draw in annotations.draw.items()})
    labelled = [name for name in found if name in annotations.draw]
    rest = [name for name in found if name not in annotations.draw]
    if not labelled:
        other = next(iter(annotations.draw), "none")
        raise UserError(
            f"{photos[0]}: no photograph has labels; a label goes with the photograph of the same name "
            f"(photograph '{next(iter(found))}', label '{other}')"
        )
    if min(len(labelled), len(rest)) < FEWEST:
        raise UserError(
            f"{photos[0]}: {len(labelled)} photographs with labels and {len(rest)} without; needs {FEWEST} of each: "
            "known classes are learned from the first, unknown ones discovered in the others"
        )
    new = root / ".new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        with ThreadPoolExecutor(workers) as pool:
            made = pool.map(lambda name: _photo(new, name, found[name], annotations), found)
            seen = dict(zip(found, tqdm(made, total=len(found), leave=False, disable=None), strict=True))
        shown = {name: set(seen[name].pixels or ()) for name in labelled}
        made_set = FolderSet(
            annotations.names,
            seen,
            {**draw_validation(shown, val, seed), "unlabelled": rest},
            annotations.kind,
            sorted(set(annotations.draw) - set(found)),
        )
        if not any(number for name in labelled for number in seen[name].pixels or {}):
            raise UserError(f"{photos[0]}: no pixel of a class in {len(labelled)} labels, background alone")
        for part, ids in made_set.lists.items():
            write_list(new / "sets" / f"{part}.txt", ids)
        write_text(root / f"{SPLIT}.yaml", SPLIT_TEXT)  # first: it marks the other files as written by this function
        for part in PARTS:
            shutil.rmtree(root / part, ignore_errors=True)
            (new / part).rename(root / part)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    write_classes(root, annotations.names)
    return made_set


def _composed(name: str) -> str:
    """A name in composed Unicode form; file systems store accents composed or decomposed."""
    return unicodedata.normalize("NFC", name)


def _require_own(root: Path, inputs: Sequence[Path]) -> None:
    """Raises UserError if a folder to rewrite holds an input, or was not written by `build_folder`."""
    made = [(root / part).resolve() for part in PARTS]
    inside = next((path for path in inputs if any(path.resolve().is_relative_to(part) for part in made)), None)
    if inside:
        raise UserError(f"--root {root}: {inside} is inside a folder that will be overwritten; choose another --root")
    split = root / f"{SPLIT}.yaml"
    there = next((root / name for name in (*PARTS, "classes.yaml") if (root / name).exists()), None)
    if there and not (split.is_file() and split.read_text(encoding="utf-8", errors="replace") == SPLIT_TEXT):
        raise UserError(f"--root {root}: {there} is there and was not made by this command; choose another --root")


def draw_validation(shown: Mapping[str, Set[int]], share: float, seed: int) -> dict[str, list[str]]:
    """`train` and `val`, each with at least one image, in the order of `shown` (image -> its classes).

    The last training image of a class is never drawn: a class without training images cannot be validated.
    """
    names = list(shown)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    left = Counter(number for classes in shown.values() for number in classes)
    drawn: set[str] = set()
    for name in order:
        if len(drawn) < count and all(left[number] > 1 for number in shown[name]):
            drawn.add(name)
            left.subtract(shown[name])
    drawn = drawn or {order[0]}
    return {"train": [n for n in names if n not in drawn], "val": [n for n in names if n in drawn]}


def write_classes(root: Path, names: Sequence[str]) -> None:
    """Writes classes.yaml and legend.jpg."""
    write_text(root / "classes.yaml", yaml.safe_dump(list(names), allow_unicode=True))
    write_picture(root / "legend.jpg", legend(names))


def legend(names: Sequence[str], height: int = 28) -> np.ndarray:
    """A picture uint8 [H, W, 3] with number, colour and name of each class."""
    canvas = np.full((height * len(names), 420, 3), 255, np.uint8)
    for number, name in enumerate(names):
        top = number * height
        canvas[top + 4 : top + height - 4, 6:46] = voc_palette()[number]
        text = f"{number}  {name}".encode("ascii", "replace").decode()  # OpenCV's font is ASCII only
        cv2.putText(canvas, text, (56, top + height - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (31, 41, 51), 1, cv2.LINE_AA)
    return canvas


def _photo(new: Path, name: str, path: Path, annotations: Annotations) -> Photo:
    """Links a photograph and writes its label; a label in EXIF orientation makes a rotated copy of the photograph."""
    target = new / "images" / f"{name}{path.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    height, width = read_image(path).shape[:2]
    if name not in annotations.draw:
        target.symlink_to(path.resolve())
        return Photo(path, (height, width))
    try:
        label = annotations.draw[name]((height, width))
        target.symlink_to(path.resolve())
    except UserError:
        if height == width or orientation(path) < 5:  # 5 to 8 exchange height and width
            raise
        label = annotations.draw[name]((width, height))
        Image.fromarray(read_image(path, as_shown=True)).save(target.with_suffix(".png"))
    write_label(new / "labels" / f"{name}.png", label)
    counts = Counter(dict(enumerate(np.bincount(label.ravel(), minlength=IGNORE + 1).tolist())))
    return Photo(path, label.shape, {number: count for number, count in counts.items() if count and number != IGNORE})
