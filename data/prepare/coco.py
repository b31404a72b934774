"""Masks and image lists of COCO 2014 from its annotation files, in the layout data.layouts.COCO."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from data.label_map import IGNORE
from data.prepare.masks import write_masks
from utils.checkpoint import read_json, write_json, write_list
from utils.errors import UserError, missing_package

try:
    from pycocotools import mask as coco_mask
except ImportError:  # optional: OpenCV's polygons differ only at border pixels
    coco_mask = None

Segmentation = list[list[float]] | dict[str, Any]  # polygons of x, y in turn, or run lengths
Rule = Literal["published", "correct"]
PARTS = ("train2014", "val2014")
MARKER = "masks.json"
FARTHEST = 2**20  # largest coordinate, pixels; beyond, OpenCV's fixed-point numbers overflow


@dataclass(frozen=True)
class Drawing:
    """One image's objects in file order: (class, COCO segmentation, is a crowd)."""

    id: str
    height: int
    width: int
    objects: list[tuple[int, Segmentation, bool]]


def build_coco(root: Path, images: Path, annotations: Path, rule: Rule, workers: int = 2) -> dict[str, int]:
    """Writes masks, image links and lists below `root`; returns image counts by part. Existing masks are kept.

    published   as the official code: the first polygon of an object, truncated to integers; crowds are background
    correct     all polygons of an object; crowds are ignored (255) except where another object lies
    """
    root.mkdir(parents=True, exist_ok=True)
    if (root / MARKER).exists() and read_json(root / MARKER)["rule"] != rule:
        before = read_json(root / MARKER)["rule"]
        raise UserError(f"{root}: holds masks drawn by the rule '{before}'; choose another --root for '{rule}'")
    write_json(root / MARKER, {"rule": rule})
    counts = {}
    for part in PARTS:
        if not (images / part).is_dir():
            raise UserError(f"--images {images}: no folder '{part}'")
        drawings = list(read_drawings(annotations / f"instances_{part}.json"))
        if not (root / part).exists():
            (root / part).symlink_to((images / part).resolve())
        by_id = {drawing.id: drawing for drawing in drawings}
        write_masks(root / f"masks_{part}", by_id, partial(draw, rule=rule), workers, f"masks of {part}")
        write_list(root / f"{part}.txt", [drawing.id for drawing in drawings])
        counts[part] = len(drawings)
    return counts


def read_drawings(path: Path) -> Iterator[Drawing]:
    """Images with a non-crowd object, by ascending id. Class numbers are positions of categories in the file, from 1.

    Raises UserError for an annotation that cannot be drawn; an empty segmentation is allowed.
    """
    content = dict(read_json(path))  # a plain dict raises KeyError, handled below
    try:
        images = {str(image["id"]): image for image in content["images"]}  # some programs write ids as text
        classes = {str(category["id"]): 1 + place for place, category in enumerate(content["categories"])}
        annotations = list(content["annotations"])
        named = {
            number: (str(image["file_name"]), int(image["height"]), int(image["width"]))
            for number, image in sorted(images.items(), key=lambda item: item[1]["id"])
        }
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not a COCO instances file ({problem}); expected instances_train2014.json") from None
    for what, given in {
        "image id": [str(image["id"]) for image in content["images"]],
        "category id": [str(category["id"]) for category in content["categories"]],
        "name of an image": [Path(name).stem for name, _, _ in named.values()],
    }.items():
        twice = next((value for value, count in Counter(given).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{path}: the {what} '{twice}' occurs twice; make it unique")
    if len(classes) >= IGNORE:
        raise UserError(f"{path}: {len(classes)} categories; masks of 8 bits hold at most {IGNORE - 1}")
    objects = defaultdict(list)
    for place, annotation in enumerate(annotations):
        try:
            image, thing = _read_object(annotation, images, classes)
        except (KeyError, TypeError, ValueError) as error:
            name = annotation.get("id", f"number {place}") if isinstance(annotation, dict) else f"number {place}"
            missing = "no " if isinstance(error, KeyError) else ""
            raise UserError(f"{path}: annotation {name}: {missing}{error}") from None
        objects[image].append(thing)
    for number, (name, height, width) in named.items():
        if any(not crowd for _, _, crowd in objects[number]):
            yield Drawing(Path(name).stem, height, width, objects[number])


def _read_object(annotation: dict, images: dict, classes: dict) -> tuple[str, tuple[int, Segmentation, bool]]:
    """(image id, object) of an annotation. Raises ValueError, KeyError or TypeError for a faulty one."""
    number, category = str(annotation["image_id"]), str(annotation["category_id"])
    if number not in images:
        raise ValueError(f"image_id {number} is not one of the images")
    if category not in classes:
        raise ValueError(f"category_id {category} is not one of the categories")
    segmentation, image = annotation["segmentation"], images[number]
    if isinstance(segmentation, dict):
        _require_runs(segmentation, image["height"], image["width"])
    elif isinstance(segmentation, list):
        _require_polygons(segmentation)
    else:
        raise ValueError(f"segmentation is a {type(segmentation).__name__}, expected polygons or run lengths")
    return number, (classes[category], segmentation, bool(int(annotation.get("iscrowd", 0))))


def _require_polygons(polygons: list) -> None:
    """Raises ValueError unless each polygon is a list of x, y for at least three points; boxes are not."""
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise ValueError("segmentation is a list of numbers, expected a list of polygons")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, expected x, y of three points or more")
        require_near(np.array(polygon, dtype=np.float64))


def _require_runs(segmentation: dict, height: int, width: int) -> None:
    """Raises ValueError unless run lengths fill the image, and UserError for compressed ones without pycocotools."""
    size, counts = segmentation["size"], segmentation["counts"]
    if list(size) != [height, width]:
        raise ValueError(f"run lengths of {size} pixels, but the image has {[height, width]}")
    if isinstance(counts, str):
        if coco_mask is None:
            raise missing_package("a mask of compressed run lengths", "pycocotools")
    elif not all(isinstance(count, int) for count in counts):
        raise ValueError("run lengths that are no whole numbers")
    elif min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels, but the image has {height * width}")


def draw(drawing: Drawing, rule: Rule) -> np.ndarray:
    """Mask uint8 [H, W]: 0, class numbers and, with rule `correct`, 255. Later objects cover earlier ones."""
    mask = np.zeros((drawing.height, drawing.width), np.uint8)
    if rule == "published":
        for number, segmentation, crowd in drawing.objects:
            if segmentation and not crowd:
                _draw_first_part(mask, segmentation, number)
        return mask
    for number, segmentation, crowd in sorted(drawing.objects, key=lambda thing: not thing[2]):  # crowds first
        if segmentation:
            mask[region(segmentation, *mask.shape)] = IGNORE if crowd else number
    return mask


def _draw_first_part(mask: np.ndarray, segmentation: Segmentation, number: int) -> None:
    """Draws the first polygon, truncated to integers; run lengths, which the official code cannot read, in full."""
    if isinstance(segmentation, dict):
        mask[region(segmentation, *mask.shape)] = number
        return
    points = np.array(segmentation[0]).reshape(-1, 2).astype(np.int32)
    cv2.fillPoly(mask, [points], number)


def region(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """Mask bool [H, W] of a COCO segmentation: a list of polygons, or column-wise run lengths."""
    if coco_mask:
        compressed = isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)
        parts = segmentation if compressed else coco_mask.frPyObjects(segmentation, height, width)
        merged = coco_mask.merge(parts) if isinstance(parts, list) else parts
        return coco_mask.decode(merged).astype(bool)
    if isinstance(segmentation, dict):
        values = np.arange(len(segmentation["counts"])) % 2 == 1
        return np.repeat(values, segmentation["counts"]).reshape(width, height).T
    mask = np.zeros((height, width), np.uint8)
    for polygon in segmentation:
        fill(mask, np.array(polygon).reshape(-1, 2), 1)
    return mask.astype(bool)


def fill(values: np.ndarray, points: np.ndarray, number: int) -> None:
    """Sets [H, W] to `number` inside a polygon of points x, y [N, 2], with a precision of 1/16 pixel."""
    require_near(points)
    fixed = np.round((points - 0.5) * 16).astype(np.int32)  # OpenCV's pixel centres are at integers
    cv2.fillPoly(values, [fixed], number, shift=4)


def require_near(coordinates: np.ndarray) -> None:
    """Raises ValueError for a coordinate that is NaN or beyond FARTHEST."""
    if not (np.abs(coordinates) < FARTHEST).all():  # also false for NaN
        raise ValueError("a polygon has a coordinate that is no number, or far outside of any picture")
