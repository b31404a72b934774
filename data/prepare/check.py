"""Checks every file that the stages of a configuration read, and lists every fault by kind."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.io import (
    MovedColours,
    OneSidedMask,
    OtherKind,
    check_png,
    orientation,
    read_bytes,
    read_image,
    read_label,
    read_mask,
    voc_palette,
)
from data.label_map import LabelMap
from data.layouts import Located, Sample, locate
from data.lists import values_in_label
from data.prepare.arguments import KINDS
from data.protocol import builder_of, read_sets
from data.source import ImageSet
from utils.checkpoint import first_line, read_lines, write_text
from utils.config.common import Common
from utils.errors import UserError
from utils.labels import IGNORE

try:
    import simplejpeg  # decodes strictly; OpenCV and Pillow invent what they cannot read
except ImportError:
    simplejpeg = None

JPEG = b"\xff\xd8\xff"


class Fault(NamedTuple):
    """A fault of a file; `kind` is one of KINDS."""

    kind: str
    file: str
    what: str


class Picture(NamedTuple):
    """An image file: (height, width), None if unreadable; hash of its bytes; EXIF orientation."""

    size: tuple[int, int] | None
    digest: bytes
    turn: int


@dataclass
class Result:
    """The check of one image: values in its mask (None: unreadable), palette colours of these values, faults."""

    id: str
    image: Path
    picture: Picture | None = None
    values: frozenset[int] | None = None
    colours: dict[int, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def note(self, error: UserError, path: Path, kind: str = "damaged") -> None:
        kinds = {OtherKind: "kind", MovedColours: "palette", OneSidedMask: "saliency"}
        self.faults.append(Fault(kinds.get(type(error), kind), str(path), str(error).removeprefix(f"{path}: ")))


class Check:
    """One pass over all files of a configuration. `faults` grows while `lines` is iterated over."""

    def __init__(self, cfg: Common):
        self.cfg = cfg
        self.faults: dict[Fault, None] = {}  # a set in the order of the lists
        self.sets: list[ImageSet] = []
        self.values: list[dict[str, frozenset[int]]] = []  # of each set: image -> values in its mask
        self._pictures: dict[Path, Picture] = {}
        self._first: dict[bytes, tuple[Path, str]] = {}  # hash of a picture -> (its file, name of its set)
        self._colours: dict[int, tuple[bytes, str]] = {}  # value -> (its colour, a mask with it)
        self._other_colours: tuple[int, str, str] | None = None

    def lines(self) -> Iterator[str]:
        """A line per image list, then the number of images per class, warnings, and the notes of the system."""
        try:
            for images in read_sets(self.cfg, self._read_list):
                images = self._shown(images)
                self.sets.append(images)
                before, dropped = len(self.faults), self._check(images)
                count = len(self.faults) - before
                rest = f", {dropped} without all files" if dropped else ""
                shown = _faults(count) if count else "no fault"
                yield f"{images.name}: {len(images.ids) - dropped} images, {shown}{rest}"
        except UserError as error:  # a list is missing, or classes do not fit
            self._add(Fault("list", str(self.cfg.data.lists or self.cfg.data.root or ""), str(error)))
        self._compare_sets()
        yield from self._classes()
        if self._other_colours:
            value, one, other = self._other_colours
            yield f"warning: palettes differ: {value} has another colour in {other} than in {one}"
        if simplejpeg is None:
            yield "warning: damage inside JPEG files is not detected; pip install simplejpeg"
        if not self.faults:
            yield from builder_of(self.cfg).notes(self.cfg)

    def _read_list(self, path: Path) -> list[str]:
        """The ids of a list, each once; repeats are faults."""
        counts = Counter(read_lines(path))
        for name, count in counts.items():
            if count > 1:
                self._add(Fault("list", str(path), f"image '{name}' is there {count} times"))
        return list(counts)

    def _shown(self, images: ImageSet) -> ImageSet:
        """The set without images whose mask holds none of the values `images.showing`."""
        if images.showing is None:
            return images
        found = {name for values in self.values for name, held in values.items() if held & images.showing}
        return replace(images, ids=[name for name in images.ids if name in found])

    def _add(self, fault: Fault) -> None:
        self.faults.setdefault(fault)

    def _check(self, images: ImageSet) -> int:
        """Check the images of a set; returns the number of images left out, as the configuration allows."""
        values, dropped = dict[str, frozenset[int]](), 0
        self.values.append(values)
        with ThreadPoolExecutor() as pool:
            samples = list(self._located(images))
            results = pool.map(lambda located: self._check_image(images, located), samples)
            for result in tqdm(results, desc=images.name, total=len(samples), leave=False, disable=None):
                if result is None:
                    dropped += 1
                    continue
                for fault in result.faults:
                    self._add(fault)
                if result.values is not None:
                    values[result.id] = result.values
                self._compare(images, result)
        return dropped

    def _located(self, images: ImageSet) -> Iterator[Located]:
        layout = images.context.layout
        wrong = [name for name in images.ids if not layout.ids.fullmatch(name)]
        for name in wrong:
            self._add(Fault("list", name, f"an id of '{images.name}' that is none of this layout ({layout.expected})"))
        if not images.ids:
            self._add(Fault("list", images.name, "the list holds no image"))
        ids = [name for name in images.ids if layout.ids.fullmatch(name)]
        try:
            yield from locate(
                images.context.root, ids, images.fields, layout, images.label_folder, images.saliency_folder
            )
        except UserError as error:  # a folder is missing
            self._add(Fault("missing", str(images.context.root), str(error)))

    def _check_image(self, images: ImageSet, located: Located) -> Result | None:
        """None for an image that is left out."""
        if images.missing != "error" and located.absent and "image" not in located.absent:
            return None
        result = Result(located.id, located.paths["image"])
        for name in located.absent:
            where = f"no such file, but '{located.id}' is in the list of '{images.name}'"
            result.faults.append(Fault("missing", str(located.paths[name]), where))
        paths = {name: path for name, path in located.paths.items() if name not in located.absent}
        if "image" in paths:
            result.picture = self._picture(paths["image"], result)
        if result.picture and result.picture.turn != 1 and len(paths) > 1:
            turn = f"EXIF turn {result.picture.turn}; its maps must lie on the pixels as they are stored"
            result.faults.append(Fault("turned", str(paths["image"]), turn))
        if "label" in paths:
            sample = Sample(
                located.id, located.paths["image"], paths["label"], read_label=images.context.layout.read_label
            )
            _check_label(sample, images, result)
        if "saliency" in paths:
            _check_saliency(paths["saliency"], images, result)
        return result

    def _picture(self, path: Path, result: Result) -> Picture:
        if path not in self._pictures:
            self._pictures[path] = open_picture(path, result)
        return self._pictures[path]

    def _compare(self, images: ImageSet, result: Result) -> None:
        """Compare with earlier images: the same picture under another name, another colour for a value."""
        if result.picture and result.picture.size:
            first, name = self._first.setdefault(result.picture.digest, (result.image, images.name))
            if first != result.image:
                self._add(Fault("duplicate", str(result.image), f"the same picture as {first} of '{name}'"))
        for value, colour in result.colours.items():
            known, mask = self._colours.setdefault(value, (colour, result.id))
            if known != colour and not self._other_colours:
                self._other_colours = value, mask, result.id

    def _compare_sets(self) -> None:
        train = {name for images in self.sets if not images.validation for name in images.ids}
        for images in (images for images in self.sets if images.validation):
            for name in images.ids:
                if name in train:
                    self._add(Fault("overlap", name, f"is trained on, and in the list of '{images.name}'"))

    def _classes(self) -> Iterator[str]:
        """The number of training images with each class; an image of two sets counts by its first mask."""
        counts: dict[str, int] = {}
        seen: set[str] = set()
        for images, found in zip(self.sets, self.values, strict=True):
            if not images.class_names:
                continue
            counts |= {label: 0 for label in images.class_names.values() if label not in counts}
            for name, values in found.items():
                if name not in seen:
                    seen.add(name)
                    for label in {images.class_names[value] for value in values if value in images.class_names}:
                        counts[label] += 1
        for label, count in counts.items():
            yield f"  {label:28}{count:5} training images"


def open_picture(path: Path, result: Result) -> Picture:
    """Decode an image strictly; faults go to `result`."""
    try:
        content = read_bytes(path, "an image")
    except UserError as error:
        result.note(error, path)
        return Picture(None, b"", 1)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    size: tuple[int, ...] = ()
    try:
        size = _strict_jpeg(content, path) if content.startswith(JPEG) and simplejpeg else read_image(path).shape[:2]
    except UserError as error:
        result.note(error, path)
    return Picture((size[0], size[1]) if size else None, digest, orientation(path))


def _strict_jpeg(content: bytes, path: Path) -> tuple[int, ...]:
    """(height, width). Raises UserError if the decoder skips or invents data."""
    try:
        return simplejpeg.decode_jpeg(content, "GRAY", strict=True).shape[:2]
    except ValueError as error:
        raise UserError(f"{path}: not a readable image ({first_line(error)})") from None


def _check_label(sample: Sample, images: ImageSet, result: Result) -> None:
    assert sample.label and images.label_map, sample
    try:
        label = sample.load_label()
    except UserError as error:
        result.note(error, sample.label)
        return
    result.values = values_in_label(label)
    _same_size(sample.label, label.shape, result)
    _check_values(sample.label, label, images.label_map, result)
    if sample.label.suffix == ".png":
        palette = check_png(read_bytes(sample.label, "a PNG"), sample.label).palette or b""
        used = (value for value in result.values if 3 * value + 3 <= len(palette))
        result.colours = {value: palette[3 * value : 3 * value + 3] for value in used}


def _check_values(path: Path, label: np.ndarray, label_map: LabelMap, result: Result) -> None:
    try:
        label_map(label, where=str(path))
    except UserError as error:
        grey = _luminances()[: np.count_nonzero(label_map.table >= 0)]  # all classes, at least
        is_grey = set(np.unique(label).tolist()) <= {*grey.tolist(), _luminances()[IGNORE]}
        result.note(error, path, "luminance" if is_grey else "value")


def _luminances() -> np.ndarray:
    """Grey level of each VOC colour by the usual luma weights (ITU-R 601), int [256]."""
    return (voc_palette().astype(np.int64) @ (19595, 38470, 7471) + 0x8000) >> 16


def _check_saliency(path: Path, images: ImageSet, result: Result) -> None:
    try:
        mask = read_mask(path, images.mask_rule, one_sided=True) if images.mask_rule else read_label(path)
    except UserError as error:
        result.note(error, path)
        return
    _same_size(path, mask.shape, result)
    if (mask > 0).all() or not mask.any():
        which = "every" if mask.any() else "no"
        result.faults.append(Fault("saliency", str(path), f"{which} pixel is salient"))


def _same_size(path: Path, shape: tuple[int, ...], result: Result) -> None:
    picture = result.picture
    if picture and picture.size and shape != picture.size:
        turned = f" as stored (EXIF turn {picture.turn})" if picture.turn > 4 else ""
        what = f"{shape[1]}x{shape[0]} pixels, but {result.image} has {picture.size[1]}x{picture.size[0]}{turned}"
        result.faults.append(Fault("size", str(path), what))


def summary(faults: Iterable[Fault], allowed: Sequence[str] = ()) -> str:
    """'12 faults: 9 size, 3 value' without the allowed kinds; '' for none."""
    counts = Counter(fault.kind for fault in faults if fault.kind not in allowed)
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    return f"{_faults(counts.total())}: {listed}" if counts else ""


def _faults(count: int) -> str:
    return f"{count} fault" if count == 1 else f"{count} faults"


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """Write the faults as CSV with the columns kind, file, what."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Fault._fields)
    rows.writerows(faults)
    write_text(path, text.getvalue())
