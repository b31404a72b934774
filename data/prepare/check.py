"""Does a data root hold what the stages of a configuration will read? Every fault of every file, by kind."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data.io import (
    MovedColours,
    OneSidedMask,
    OtherKind,
    orientation,
    read_bytes,
    read_image,
    read_label,
    read_mask,
    voc_palette,
)
from data.label_map import LabelMap
from data.layouts import Located, Sample, locate
from data.png import check_png
from data.prepare.kinds import KINDS
from data.prepare.roles import ABOUT, Found, Role, roles_of
from data.presence import values_in_label
from utils.checkpoint import first_line, read_lines, write_text
from utils.errors import UserError
from utils.labels import IGNORE

try:
    import simplejpeg  # decodes strictly: OpenCV and Pillow fill what they cannot read
except ImportError:
    simplejpeg = None

JPEG = b"\xff\xd8\xff"


class Fault(NamedTuple):
    """Something wrong with a file; `kind` is one of KINDS."""

    kind: str
    file: str
    what: str


class Picture(NamedTuple):
    """What an image file holds: (height, width), None when it cannot be read; a hash of its bytes; its EXIF turn."""

    size: tuple[int, int] | None
    digest: bytes
    turn: int


@dataclass
class Result:
    """Of one image: values in its mask (None: not readable), colours of these values, and what is wrong."""

    id: str
    image: Path
    picture: Picture | None = None
    values: frozenset[int] | None = None
    colours: dict[int, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def note(self, error: UserError, path: Path, kind: str = "damaged") -> None:
        kinds = {OtherKind: "kind", MovedColours: "palette", OneSidedMask: "saliency"}
        self.faults.append(Fault(kinds.get(type(error), kind), str(path), _without(str(error), path)))


class Check:
    """One pass over everything that a configuration reads. `faults` grow while `lines` is iterated over."""

    def __init__(self, cfg: Any):
        self.cfg = cfg
        self.faults: dict[Fault, None] = {}  # each once, in the order of the lists
        self.roles: list[Role] = []
        self.found: Found = {}
        self._pictures: dict[Path, Picture] = {}
        self._first: dict[bytes, tuple[Path, str]] = {}  # hash of a picture -> (its file, a role)
        self._colours: dict[int, tuple[bytes, str]] = {}  # value -> (its colour, a mask with it)
        self._other_colours: tuple[int, str, str] | None = None

    def lines(self) -> Iterator[str]:
        """What was found of each list; then the counts of images by class, and what the system has to say."""
        try:
            for role in roles_of(self.cfg, self._read_list, self.found):
                self.roles.append(role)
                before, dropped = len(self.faults), self._check(role)
                count = len(self.faults) - before
                rest = f", {dropped} without all files" if dropped else ""
                shown = _faults(count) if count else "no fault"
                yield f"{role.name}: {len(role.ids) - dropped} images, {shown}{rest}"
        except UserError as error:  # a list that is not there, classes that do not fit
            self._add(Fault("list", str(self.cfg.data.lists or self.cfg.data.root or ""), str(error)))
        self._compare_roles()
        yield from self._classes()
        if self._other_colours:
            value, one, other = self._other_colours
            yield f"warning: palettes differ: {value} has another colour in {other} than in {one}"
        if simplejpeg is None:
            yield "warning: damage inside JPEG files is not looked for; pip install simplejpeg"
        if not self.faults and self.cfg.system in ABOUT:
            yield from ABOUT[self.cfg.system](self.cfg)

    def _read_list(self, path: Path) -> list[str]:
        """Each id once; repeats are faults."""
        counts = Counter(read_lines(path))
        for name, count in counts.items():
            if count > 1:
                self._add(Fault("list", str(path), f"image '{name}' is there {count} times"))
        return list(counts)

    def _add(self, fault: Fault) -> None:
        self.faults.setdefault(fault)

    def _check(self, role: Role) -> int:
        """Check the images of a role; how many are left out, as the configuration allows."""
        values, dropped = self.found.setdefault(role.name, {}), 0
        with ThreadPoolExecutor() as pool:
            samples = list(self._located(role))
            results = pool.map(lambda located: self._check_image(role, located), samples)
            for result in tqdm(results, desc=role.name, total=len(samples), leave=False, disable=None):
                if result is None:
                    dropped += 1
                    continue
                for fault in result.faults:
                    self._add(fault)
                if result.values is not None:
                    values[result.id] = result.values
                self._compare(role, result)
        return dropped

    def _located(self, role: Role) -> Iterator[Located]:
        layout = role.context.layout
        wrong = [name for name in role.ids if not layout.ids.fullmatch(name)]
        for name in wrong:
            self._add(Fault("list", name, f"an id of '{role.name}' that is none of this layout ({layout.expected})"))
        if not role.ids:
            self._add(Fault("list", role.name, "the list holds no image"))
        ids = [name for name in role.ids if layout.ids.fullmatch(name)]
        try:
            yield from locate(role.context.root, ids, role.fields, layout, **role.where)
        except UserError as error:  # a folder that is not there
            self._add(Fault("missing", str(role.context.root), str(error)))

    def _check_image(self, role: Role, located: Located) -> Result | None:
        """None for an image that is left out."""
        if role.optional and located.absent and "image" not in located.absent:
            return None
        result = Result(located.id, located.paths["image"])
        for name in located.absent:
            where = f"no such file, but '{located.id}' is in the list of '{role.name}'"
            result.faults.append(Fault("missing", str(located.paths[name]), where))
        paths = {name: path for name, path in located.paths.items() if name not in located.absent}
        if "image" in paths:
            result.picture = self._picture(paths["image"], result)
        if result.picture and result.picture.turn != 1 and len(paths) > 1:
            turn = f"EXIF turn {result.picture.turn}; its maps must lie on the pixels as they are stored"
            result.faults.append(Fault("turned", str(paths["image"]), turn))
        if "label" in paths:
            sample = Sample(
                located.id, located.paths["image"], paths["label"], read_label=role.context.layout.read_label
            )
            _check_label(sample, role, result)
        if "saliency" in paths:
            _check_saliency(paths["saliency"], role, result)
        return result

    def _picture(self, path: Path, result: Result) -> Picture:
        if path not in self._pictures:
            self._pictures[path] = open_picture(path, result)
        return self._pictures[path]

    def _compare(self, role: Role, result: Result) -> None:
        """With the images before: the same picture under another name, another colour for a value."""
        if result.picture and result.picture.size:
            first, name = self._first.setdefault(result.picture.digest, (result.image, role.name))
            if first != result.image:
                self._add(Fault("duplicate", str(result.image), f"the same picture as {first} of '{name}'"))
        for value, colour in result.colours.items():
            known, mask = self._colours.setdefault(value, (colour, result.id))
            if known != colour and not self._other_colours:
                self._other_colours = value, mask, result.id

    def _compare_roles(self) -> None:
        train = {name for role in self.roles if not role.validation for name in role.ids}
        for role in (role for role in self.roles if role.validation):
            for name in role.ids:
                if name in train:
                    self._add(Fault("overlap", name, f"is trained on, and in the list of '{role.name}'"))

    def _classes(self) -> Iterator[str]:
        """How many training images show each class; an image of two sources counts by its first mask."""
        counts: dict[str, int] = {}
        seen: set[str] = set()
        for role in (role for role in self.roles if role.labels):
            counts |= {label: 0 for label in role.labels.values() if label not in counts}
            for name, values in self.found[role.name].items():
                if name not in seen:
                    seen.add(name)
                    for label in {role.labels[value] for value in values if value in role.labels}:
                        counts[label] += 1
        for label, count in counts.items():
            yield f"  {label:28}{count:5} training images"


def open_picture(path: Path, result: Result) -> Picture:
    """Decode an image strictly; what is wrong goes to `result`."""
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
    """(height, width); UserError where the decoder had to skip or invent data."""
    try:
        return simplejpeg.decode_jpeg(content, "GRAY", strict=True).shape[:2]
    except ValueError as error:
        raise UserError(f"{path}: not a readable image ({first_line(error)})") from None


def _check_label(sample: Sample, role: Role, result: Result) -> None:
    assert sample.label and role.label_map, sample
    try:
        label = sample.load_label()
    except UserError as error:
        result.note(error, sample.label)
        return
    result.values = values_in_label(label)
    _same_size(sample.label, label.shape, result)
    _check_values(sample.label, label, role.label_map, result)
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
    """Grey level of each of VOC's colours, as Pillow and most programs weigh them: int [256]."""
    return (voc_palette().astype(np.int64) @ (19595, 38470, 7471) + 0x8000) >> 16


def _check_saliency(path: Path, role: Role, result: Result) -> None:
    try:
        mask = read_mask(path, role.rule, one_sided=True) if role.rule else read_label(path)
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
    """'12 faults: 9 size, 3 value' of those that are not allowed; '' for none."""
    counts = Counter(fault.kind for fault in faults if fault.kind not in allowed)
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    return f"{_faults(counts.total())}: {listed}" if counts else ""


def _faults(count: int) -> str:
    return f"{count} fault" if count == 1 else f"{count} faults"


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """A CSV table of the faults: kind, file, what."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Fault._fields)
    rows.writerows(faults)
    write_text(path, text.getvalue())


def check_pairs(samples: Sequence[Sample], label_map: LabelMap, title: str) -> None:
    """UserError for the first image or mask that cannot be read, has another value, or another size than its image."""

    def check(sample: Sample) -> None:
        assert sample.label, sample
        size, label = read_image(sample.image).shape[:2], label_map(sample.load_label(), where=str(sample.label))
        if label.shape != size:
            shown = f"{label.shape[1]}x{label.shape[0]} pixels, but {sample.image} has {size[1]}x{size[0]}"
            raise UserError(f"{sample.label}: {shown}")

    with ThreadPoolExecutor() as pool:
        list(tqdm(pool.map(check, samples), total=len(samples), desc=title, leave=False, disable=None))


def _without(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")
