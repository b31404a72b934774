"""Disk layouts of data roots. Only this module knows folder names, file endings and mask formats."""

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.io import IMAGES, read_label, read_lowered, read_voc_label
from data.label_map import LabelMap
from data.mat import read_context, read_sbd, read_stuff
from utils.errors import UserError
from utils.inputs import DataFiles
from utils.log import log

Reader = Callable[[Path], np.ndarray]
Missing = Literal["error", "drop", "none"]
TRAIN_FOLDER = "SegmentationClassAug"  # masks for training, by the name of VOC's folder; layouts map it to theirs


@dataclass(frozen=True)
class Sample:
    """Paths of one image's files; None for fields that a stage does not read.

    `label_map` replaces that of the data set for this image, for example for pseudo-labels among masks.
    """

    id: str
    image: Path
    label: Path | None = None
    saliency: Path | None = None
    pseudo: Path | None = None
    label_map: LabelMap | None = None
    read_label: Reader = read_label

    def load_label(self) -> np.ndarray:
        """The values of the label file, [H, W]; only for samples with a label."""
        assert self.label, self
        return self.read_label(self.label)


@dataclass(frozen=True)
class Layout:
    """Folder names by kind of file; the first existing folder is used.

    {part} in a folder name is group 1 of the id pattern `ids`, or a name that `parts` lists for it. If ids have no
    part, the folders of all parts are searched.
    """

    folders: dict[str, tuple[str, ...]]
    val_list: str
    expected: str
    ids: re.Pattern = re.compile(r"()[^/]+")
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # part in ids, or list -> its names in folders
    listed: bool = True  # image lists are files; if not, a list holds every image of its part that has a mask
    image_ending: str | None = ".jpg"  # the published one, preferred to others of the same name
    label_ending: str = ".png"
    read_label: Reader = read_label  # of masks: numbers of the class list, 255 (or 65535) ignored

    def part(self, image_id: str) -> str:
        match = self.ids.fullmatch(image_id)
        if not match:
            raise UserError(f"image id '{image_id}' in a list: not one of this layout ({self.expected})")
        return match[1]

    def folder(self, root: Path, kind: str, part: str = "") -> Path:
        """The folder of `kind` below a data root. Raises UserError with the expected layout if there is none."""
        called = self.parts.get(part, (part,))
        names = [name.format(part=own) for name in self.folders.get(kind, (kind,)) for own in called]
        for name in names:
            if (root / name).is_dir():
                return root / name
        raise UserError(f"data.root={root} has no folder '{names[0]}'; expected layout: {self.expected}")

    def places(self, root: Path, kind: str, part: str) -> list[Path]:
        """The existing folders that may hold files of `kind`: that of the part, or of all parts if it is empty."""
        parts = [part] if part or not self.parts else list(self.parts)
        found: dict[Path, None] = {}
        for own in parts:
            with contextlib.suppress(UserError):
                found[self.folder(root, kind, own)] = None
        return list(found) or [self.folder(root, kind, parts[0])]

    def endings(self, kind: str) -> tuple[str, ...]:
        """Possible file endings of a field."""
        return {"image": IMAGES, "label": (self.label_ending,)}.get(kind, (".png",))


VOC = Layout(
    folders={  # second names: VOC devkit
        "image": ("images", "JPEGImages"),
        "saliency": ("saliency_supervised_model", "saliency", "saliency_map"),
        "sets": ("sets", "ImageSets/Segmentation"),
        "SegmentationClassAug": ("SegmentationClassAug", "SegmentationClass"),
        "SegmentationClass": ("SegmentationClass", "SegmentationClassAug"),
    },
    val_list="val",
    expected="images/<id>.jpg, SegmentationClassAug/<id>.png, saliency_supervised_model/<id>.png, sets/*.txt",
    read_label=read_voc_label,
)
COCO = Layout(
    folders={
        "image": ("{part}",),
        "saliency": ("saliency_supervised_model", "saliency"),
        "sets": (".",),
        "SegmentationClassAug": ("masks_{part}",),
        "SegmentationClass": ("masks_{part}",),
    },
    ids=re.compile(r"COCO_([a-z]+\d{4})_\d{12}"),
    read_label=read_voc_label,  # prepare_data.py coco writes VOC's palette
    val_list="val2014",
    expected="train2014/COCO_train2014_<12 digits>.jpg, masks_train2014/<id>.png, "
    "saliency_supervised_model/<id>.png, train2014.txt, and the same for val2014",
)


ADE = Layout(
    folders={
        "image": ("images/{part}", "images"),
        "saliency": ("saliency",),
        "sets": ("sets", "."),
        "SegmentationClassAug": ("annotations/{part}", "annotations"),
        "SegmentationClass": ("annotations/{part}", "annotations"),
    },
    ids=re.compile(r"ADE_(train|val)_\d{8}"),
    val_list="val",
    expected="images/{training,validation}/ADE_{train,val}_<8 digits>.jpg, annotations/{training,validation}/<id>.png",
    parts={"train": ("training",), "val": ("validation",)},
)
ADE_DETECTRON2 = Layout(  # prepared for detectron2: class numbers lowered by one, under both folder names
    folders={
        "image": ("images_detectron2/{part}", "images/{part}", "images"),
        "saliency": ("saliency",),
        "sets": ("sets", "."),
        "SegmentationClassAug": ("annotations_detectron2/{part}",),
        "SegmentationClass": ("annotations_detectron2/{part}",),
    },
    ids=ADE.ids,
    val_list="val",
    expected="images_detectron2/{train,test}/ADE_{train,val}_<8 digits>.jpg, annotations_detectron2/{train,test}/<id>"
    ".png, or the folders images/ and annotations_detectron2/ with the parts training and validation",
    parts={"train": ("train", "training"), "val": ("test", "validation")},
    read_label=read_lowered,
    listed=False,
)


STUFF = Layout(  # COCO-Stuff-10K
    folders={
        "image": ("images",),
        "saliency": ("saliency",),
        "sets": ("imageLists", "sets"),
        "SegmentationClassAug": ("annotations",),
        "SegmentationClass": ("annotations",),
    },
    val_list="test",
    expected="images/<id>.jpg, annotations/<id>.mat, imageLists/{train,test}.txt",
    label_ending=".mat",
    read_label=read_stuff,
)
STUFF_DETECTRON2 = Layout(  # COCO-Stuff-10K prepared for detectron2; ids have no part
    folders={
        "image": ("images_detectron2/{part}", "images"),
        "saliency": ("saliency",),
        "sets": ("imageLists", "sets"),
        "SegmentationClassAug": ("annotations_detectron2/{part}",),
        "SegmentationClass": ("annotations_detectron2/{part}",),
    },
    val_list="test",
    expected="images_detectron2/{train,test}/<id>.jpg, annotations_detectron2/{train,test}/<id>.png",
    parts={"train": ("train",), "test": ("test",)},
    listed=False,
)
SBD_FOLDERS = ("", "dataset/", "benchmark_RELEASE/dataset/")
SBD = Layout(
    folders={
        "image": (*(f"{folder}img" for folder in SBD_FOLDERS), "JPEGImages"),  # its photographs are VOC's
        "saliency": ("saliency_supervised_model", "saliency"),
        "sets": ("sets", "benchmark_RELEASE/dataset", "dataset", "."),
        "SegmentationClassAug": tuple(f"{folder}cls" for folder in SBD_FOLDERS),
        "SegmentationClass": tuple(f"{folder}cls" for folder in SBD_FOLDERS),
    },
    val_list="val",
    expected="img/<id>.jpg, cls/<id>.mat, train.txt, val.txt, or these in benchmark_RELEASE/dataset/",
    label_ending=".mat",
    read_label=read_sbd,
)
CONTEXT = Layout(  # Pascal-Context: 459 labels; its photographs are VOC 2010's
    folders={
        "image": ("images", "JPEGImages", "VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2012/JPEGImages"),
        "saliency": ("saliency_supervised_model", "saliency"),
        "sets": ("sets", "."),
        "SegmentationClassAug": ("full_annotations/trainval",),
        "SegmentationClass": ("full_annotations/trainval",),
    },
    val_list="val",
    expected="images/<id>.jpg or JPEGImages/, full_annotations/trainval/<id>.mat, train.txt, val.txt",
    label_ending=".mat",
    read_label=read_context,
)
FOLDER = Layout(  # the user's own photographs
    folders={
        "image": ("images",),
        "saliency": ("saliency", "saliency_supervised_model"),
        "sets": ("sets", "."),
        "SegmentationClassAug": ("labels", "masks"),
        "SegmentationClass": ("labels", "masks"),
    },
    val_list="val",
    expected=f"images/<id> with one of {', '.join(IMAGES)}, labels/<id>.png, saliency/<id>.png, sets/*.txt",
    image_ending=None,
)
LAYOUTS = {
    **{"voc": VOC, "coco": COCO, "ade": ADE, "cocostuff": STUFF, "context": CONTEXT, "sbd": SBD},
    **{"ade_detectron2": ADE_DETECTRON2, "cocostuff_detectron2": STUFF_DETECTRON2, "folder": FOLDER},
}


def find_layout(root: Path, name: str = "auto") -> Layout:
    """The named layout. `auto` recognises it by its folders; VOC is the default, also if SBD lies inside VOC."""
    if name != "auto":
        return LAYOUTS[name]
    if (root / "full_annotations").is_dir():
        return CONTEXT
    if any((root / folder / "cls").is_dir() for folder in SBD_FOLDERS):
        return VOC if any((root / name).is_dir() for name in VOC.folders["SegmentationClass"]) else SBD
    prepared = root / "annotations_detectron2"
    own_masks = (root / "annotations").is_dir() and (root / "images").is_dir()
    if prepared.is_dir():
        is_ade = any(
            name.startswith("ADE_") for part in prepared.iterdir() if part.is_dir() for name in os.listdir(part)
        )
        if not is_ade or not own_masks:  # PNG reads faster than .mat; ADE20K's own masks are PNG
            return ADE_DETECTRON2 if is_ade else STUFF_DETECTRON2
    if own_masks:
        return STUFF if (root / "imageLists").is_dir() or _has(root / "annotations", ".mat") else ADE
    own = all((root / folder).is_dir() for folder in ("images", "labels"))
    if own and not any((root / folder).is_dir() for folder in VOC.folders["SegmentationClass"]):
        return FOLDER
    return COCO if any((root / part).is_dir() for part in ("train2014", "val2014")) else VOC


class Located(NamedTuple):
    """Actual or expected path of each field of an image, and the fields whose file is missing."""

    id: str
    paths: dict[str, Path]
    absent: list[str]


def locate(
    root: Path,
    ids: Iterable[str],
    fields: tuple[str, ...],
    layout: Layout,
    label_folder: str = TRAIN_FOLDER,
    saliency_folder: str | None = None,
) -> Iterator[Located]:
    """The files of `fields` of each image. Raises UserError for a missing folder, or an id of another layout.

    label_folder and saliency_folder are kinds in Layout.folders or folder names below the root.
    """
    folders: dict[tuple[str, str], tuple[Path, dict[str, tuple[Path, str]]]] = {}

    def listing(kind: str, part: str) -> tuple[Path, dict[str, tuple[Path, str]]]:
        if (kind, part) not in folders:
            name = {"label": label_folder, "saliency": saliency_folder or kind}.get(kind, kind)
            places = layout.places(root, name, part)
            endings = layout.endings(kind), layout.image_ending
            found = {stem: (place, name) for place in places for stem, name in _files(place, *endings).items()}
            folders[kind, part] = places[0], found
        return folders[kind, part]

    for image_id in ids:
        part = layout.part(image_id)
        found = Located(image_id, {}, [])
        for kind in fields:
            folder, present = listing(kind, part)
            placed = _spelt_as(present, image_id)
            found.paths[kind] = Path(*placed) if placed else folder / f"{image_id}{layout.endings(kind)[0]}"
            if placed is None:
                found.absent.append(kind)
        yield found


def index_samples(
    root: Path,
    ids: Iterable[str],
    *,
    fields: tuple[str, ...],
    layout: Layout | None = None,
    missing: Missing = "error",
    looked_for: DataFiles | None = None,
    label_folder: str = TRAIN_FOLDER,
    saliency_folder: str | None = None,
) -> list[Sample]:
    """Samples with the paths of `fields` (image, label, saliency).

    The folders are those of `locate`. `looked_for` records all files. A missing folder or image raises UserError. Other
    missing files raise UserError (missing="error"), leave out the image ("drop", with the number in the log), or leave
    the path None ("none").
    """
    layout = layout or find_layout(root)
    samples, ids, dropped = [], list(ids), Counter[Path]()
    for image_id, paths, absent in locate(root, ids, fields, layout, label_folder, saliency_folder):
        if looked_for is not None:
            looked_for.add(paths.values())
        if absent and (missing == "error" or "image" in absent):
            listed = f"but '{image_id}' is in the image list (layout: {layout.expected})"
            raise UserError(f"{paths[absent[0]]}: no such file, {listed}")
        fields_of: dict[str, Any] = dict(paths)
        if missing == "none":
            fields_of |= dict.fromkeys(absent)
            absent = []
        dropped.update(paths[kind].parent for kind in absent)
        if not absent:
            samples.append(Sample(image_id, **fields_of, read_label=layout.read_label))
    if dropped:
        where_not = ", ".join(f"{count} without a file in {folder}" for folder, count in dropped.items())
        log.info("%d of %d images left out: %s", len(ids) - len(samples), len(ids), where_not)
    return samples


def ids_of_part(root: Path, layout: Layout, part: str) -> list[str]:
    """Ids of all images of a part that have a mask, ascending."""
    images, masks = (layout.folder(root, kind, part) for kind in ("image", "SegmentationClass"))
    return sorted(
        _files(images, layout.endings("image"), layout.image_ending).keys()
        & _files(masks, layout.endings("label")).keys()
    )


def _files(folder: Path, endings: tuple[str, ...], preferred: str | None = None) -> dict[str, str]:
    """Name without ending -> file name, for files with one of the endings; one directory listing, no stat per file.

    Of two files of one name, that with the `preferred` ending is used. Raises UserError if neither has it.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); expected a folder of <id>{endings[0]}") from None
    any_case = len(endings) > 1  # photographs come as .jpg and .JPG; masks are written by programs
    found: dict[str, str] = {}
    for name in names:
        stem, ending = os.path.splitext(name)
        if (ending.lower() if any_case else ending) in endings:
            known = found.setdefault(stem, name)
            if known != name and preferred not in (ending, os.path.splitext(known)[1]):
                raise UserError(f"{folder}: two images are called '{stem}' ({known}, {name}); rename one")
            if ending == preferred:
                found[stem] = name
    return found


def _spelt_as(present: dict[str, tuple[Path, str]], image_id: str) -> tuple[Path, str] | None:
    """The file of an id under any Unicode normal form; macOS decomposes accents in file names."""
    if image_id in present:
        return present[image_id]
    forms = (unicodedata.normalize(form, image_id) for form in ("NFC", "NFD"))
    return next((present[form] for form in forms if form in present), None)


def _has(folder: Path, ending: str) -> bool:
    return any(name.endswith(ending) for name in os.listdir(folder))
