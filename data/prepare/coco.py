"""Label masks and image lists of COCO 2014, drawn from its annotation files into the layout of data.layouts.COCO."""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from data.io import one_opencv_thread, write_label
from data.label_map import IGNORE
from utils.checkpoint import read_json, write_json, write_list
from utils.errors import UserError

try:
    from pycocotools import mask as coco_mask
except ImportError:  # optional: OpenCV draws the same polygons, up to pixels on their borders
    coco_mask = None

Rule = Literal["published", "correct"]
PARTS = ("train2014", "val2014")
MARKER = "masks.json"


@dataclass(frozen=True)
class Drawing:
    """One image's objects in file order: (class, COCO segmentation, is a crowd)."""

    id: str
    height: int
    width: int
    objects: list[tuple[int, Any, bool]]


def build_coco(root: Path, images: Path, annotations: Path, rule: Rule, workers: int = 2) -> dict[str, int]:
    """Masks, links to the images and lists under `root`; returns the counts per part. Goes on where it stopped.

    published   what the official code draws: the first polygon of an object, cut to whole pixels; crowds are background
    correct     every polygon of an object; a crowd is ignored (255) where nothing else lies
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
        folder = root / f"masks_{part}"
        folder.mkdir(exist_ok=True)
        done = set(os.listdir(folder))
        todo = [drawing for drawing in drawings if f"{drawing.id}.png" not in done]
        with ProcessPoolExecutor(workers, initializer=one_opencv_thread) as pool:
            drawn = pool.map(partial(_write_mask, folder, rule), todo, chunksize=32)
            list(tqdm(drawn, total=len(todo), desc=f"masks of {part}", leave=False, disable=None))
        write_list(root / f"{part}.txt", [drawing.id for drawing in drawings])
        counts[part] = len(drawings)
    return counts


def read_drawings(path: Path) -> Iterator[Drawing]:
    """Images with an object that is no crowd, by ascending id. A class is its category's place in the file."""
    content = read_json(path)
    try:
        classes = {category["id"]: 1 + place for place, category in enumerate(content["categories"])}
        objects = defaultdict(list)
        for annotation in content["annotations"]:
            thing = classes[annotation["category_id"]], annotation["segmentation"], bool(annotation["iscrowd"])
            objects[annotation["image_id"]].append(thing)
        for image in sorted(content["images"], key=lambda image: image["id"]):
            if any(not crowd for _, _, crowd in objects[image["id"]]):
                name = Path(image["file_name"]).stem
                yield Drawing(name, image["height"], image["width"], objects[image["id"]])
    except (KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not a COCO instances file ({problem}); expected instances_train2014.json") from None


def draw(drawing: Drawing, rule: Rule) -> np.ndarray:
    """uint8 [H, W] of 0, class numbers and, by the rule `correct`, 255; later objects cover earlier ones."""
    mask = np.zeros((drawing.height, drawing.width), np.uint8)
    if rule == "published":
        for number, segmentation, crowd in drawing.objects:
            if not crowd:
                points = np.array(segmentation[0]).reshape(-1, 2).astype(np.int32)
                cv2.fillPoly(mask, [points], number)
        return mask
    for number, segmentation, crowd in sorted(drawing.objects, key=lambda thing: not thing[2]):  # crowds lie below
        mask[region(segmentation, *mask.shape)] = IGNORE if crowd else number
    return mask


def region(segmentation: Any, height: int, width: int) -> np.ndarray:
    """bool [H, W] of a COCO segmentation: a list of polygons, or run lengths down the columns."""
    if coco_mask:
        parts = coco_mask.frPyObjects(segmentation, height, width)
        merged = coco_mask.merge(parts) if isinstance(parts, list) else parts
        return coco_mask.decode(merged).astype(bool)
    if isinstance(segmentation, dict):
        values = np.arange(len(segmentation["counts"])) % 2 == 1
        return np.repeat(values, segmentation["counts"]).reshape(width, height).T
    mask = np.zeros((height, width), np.uint8)
    for polygon in segmentation:
        points = np.array(polygon).reshape(-1, 2) - 0.5  # pixel centres lie at whole numbers here
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def _write_mask(folder: Path, rule: Rule, drawing: Drawing) -> None:
    write_label(folder / f"{drawing.id}.png", draw(drawing, rule))
