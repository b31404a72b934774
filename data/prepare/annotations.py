"""Label maps from the formats of annotation tools: index PNG, colour PNG, COCO JSON, LabelMe JSON."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.io import GREY, PALETTE, check_png, read_bytes, read_image, read_label
from data.prepare.class_files import Color, read_colors, read_names, require_distinct
from data.prepare.coco import Drawing, draw, fill, read_drawings
from utils.checkpoint import first_line, read_json
from utils.errors import UserError
from utils.labels import IGNORE

BACKGROUND = "background"
IGNORED = ("ignore", "__ignore__", "void")  # names of ignored regions in CVAT, LabelMe and VOC
NOTHING = (BACKGROUND, "_background_")
Size = tuple[int, int]  # height, width
Draw = Callable[[Size], np.ndarray]


@dataclass(frozen=True)
class Annotations:
    """`draw[id](size)` returns the label map uint8 [H, W] of an image. Raises UserError for a faulty label."""

    kind: str
    names: tuple[str, ...]  # background first
    draw: Mapping[str, Draw]


def read_annotations(labels: Path, colors: Path | None = None, names: Path | None = None) -> Annotations:
    """Reads a COCO file, or a folder of LabelMe files, of colour PNGs if `colors` is given, or of index PNGs.

    `names` lists the classes of index PNGs, background first. Raises UserError for other files and unused options.
    """
    if labels.is_file():
        _unused(colors, names, f"{labels} is read as COCO, which names its classes")
        return read_coco(labels)
    if not labels.is_dir():
        raise UserError(
            f"--labels {labels}: no such file or folder; give a COCO file, or a folder of PNG or LabelMe files"
        )
    masks = {path.stem: path for path in sorted(labels.glob("*.png"))}
    files = {path.stem: path for path in sorted(labels.glob("*.json"))}
    if files and not (masks and colors):
        _unused(colors, names, f"{labels} is read as LabelMe, which names its classes")
        return read_labelme(files)
    if not masks:
        raise UserError(f"--labels {labels}: neither *.png nor *.json in this folder")
    if colors:
        _unused(None, names, "--colors names the classes")
        return colour_masks(masks, read_colors(colors))
    return index_masks(masks, read_names(names) if names else None)


def _unused(colors: Path | None, names: Path | None, why: str) -> None:
    for option, path in (("--colors", colors), ("--names", names)):
        if path:
            raise UserError(f"{option} {path}: not used, {why}; leave it out")


# ---- PNG


def index_masks(masks: Mapping[str, Path], names: list[str] | None) -> Annotations:
    """Masks whose values are class numbers, 255 ignored. Default names: class 1, class 2 ..."""
    found: set[int] = set()
    for path in masks.values():
        found |= set(np.unique(_index(path, None, None)).tolist())
    highest = max(found - {IGNORE}, default=0)
    if names is None:
        names = [BACKGROUND, *(f"class {number}" for number in range(1, highest + 1))]
    return Annotations(
        "index PNG", tuple(names), {key: partial(_index, path, len(names)) for key, path in masks.items()}
    )


def _index(path: Path, num_classes: int | None, size: Size | None) -> np.ndarray:
    if check_png(read_bytes(path, "a PNG"), path).colour not in (GREY, PALETTE):
        raise UserError(f"{path}: a colour picture; give --colors FILE with a line 'name,red,green,blue' per class")
    values = read_label(path)
    if values.dtype != np.uint8:
        raise UserError(f"{path}: 16 bits per pixel; expected class numbers up to 254 in 8 bits")
    above = values[(values != IGNORE) & (values >= (num_classes or IGNORE))]
    if len(above):
        raise UserError(
            f"{path}: value {above.max()}, but --names has {num_classes} classes, 0 to {(num_classes or 0) - 1}"
        )
    return _fits(path, values, size)


def colour_masks(masks: Mapping[str, Path], colors: Mapping[Color, str]) -> Annotations:
    """Masks whose pixels have exact class colours; (0, 0, 0) is background unless `colors` has it."""
    wanted = {(0, 0, 0): BACKGROUND} | dict(colors)
    names = [name for name in dict.fromkeys(wanted.values()) if name not in (*NOTHING, *IGNORED)]
    numbers = _numbers(names)
    table = {(r << 16) + (g << 8) + b: numbers[name] for (r, g, b), name in wanted.items()}
    drawn = {key: partial(_colours, path, table) for key, path in masks.items()}
    return Annotations("colour PNG", (BACKGROUND, *names), drawn)


def _colours(path: Path, table: Mapping[int, int], size: Size) -> np.ndarray:
    rgb = read_image(path).astype(np.int32)
    codes, where = np.unique((rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2], return_inverse=True)
    for code in codes.tolist():
        if code not in table:
            color = f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
            raise UserError(f"{path}: colour {color} is of no class in --colors; list it, as 'ignore' if it is none")
    values = np.array([table[code] for code in codes.tolist()], np.uint8)[where].reshape(rgb.shape[:2])
    return _fits(path, values, size)


def _fits(path: Path, values: np.ndarray, size: Size | None) -> np.ndarray:
    if size and values.shape != size:
        raise UserError(f"{path}: {values.shape[1]}x{values.shape[0]} pixels, but its image has {size[1]}x{size[0]}")
    return values


# ---- COCO


def read_coco(path: Path) -> Annotations:
    """Images with a non-crowd object, drawn by the rule `correct` (data.prepare.coco); crowds are ignored."""
    drawings = list(read_drawings(path))
    called = [_name(category["name"], path) for category in read_json(path)["categories"]]
    names = require_distinct([name for name in called if name not in (*NOTHING, *IGNORED)], path)
    numbers, table = _numbers(names), np.full(IGNORE + 1, IGNORE, np.uint8)
    table[: 1 + len(called)] = [0, *(numbers[name] for name in called)]
    drawn = {drawing.id: partial(_coco, path, drawing, table) for drawing in drawings}
    return Annotations("COCO", (BACKGROUND, *names), drawn)


def _coco(path: Path, drawing: Drawing, table: np.ndarray, size: Size) -> np.ndarray:
    if (drawing.height, drawing.width) != size:
        said = f"drawn on {drawing.width}x{drawing.height} pixels, but it has {size[1]}x{size[0]}"
        raise UserError(f"{path}: image '{drawing.id}' was {said}")
    return table[draw(drawing, "correct")]


# ---- LabelMe


def read_labelme(files: Mapping[str, Path]) -> Annotations:
    """A file per image; polygons, rectangles, circles and masks are drawn in their order, later ones on top."""
    shapes = {key: _shapes(path) for key, path in files.items()}
    folder = next(iter(files.values())).parent
    called = {shape[0] for found in shapes.values() for shape in found} - {*NOTHING, *IGNORED}
    names = require_distinct(sorted(called), folder)
    if not names:
        raise UserError(f"{folder}: no labelled shape in its LabelMe files")
    drawn = {key: partial(_labelme, files[key], found, _numbers(names)) for key, found in shapes.items()}
    return Annotations("LabelMe", (BACKGROUND, *names), drawn)


def _shapes(path: Path) -> list[tuple[str, dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path}: not a LabelMe file; expected the key 'shapes', a list")
    try:
        return [(_name(shape["label"], path), shape) for shape in content["shapes"]]
    except (KeyError, TypeError):
        raise UserError(f"{path}: a shape without 'label'; name it") from None


def _labelme(
    path: Path, shapes: list[tuple[str, dict[str, Any]]], numbers: Mapping[str, int], size: Size
) -> np.ndarray:
    content, values = read_json(path), np.zeros(size, np.uint8)
    said = content.get("imageHeight") or size[0], content.get("imageWidth") or size[1]
    if said != size:
        raise UserError(f"{path}: drawn on {said[1]}x{said[0]} pixels, but its image has {size[1]}x{size[0]}")
    for place, (name, shape) in enumerate(shapes):
        try:
            _draw_shape(values, shape, numbers[name])
        except (ValueError, TypeError, KeyError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise UserError(f"{path}: shape {place}, '{name}': {problem}; draw it again") from None
    return values


def _draw_shape(values: np.ndarray, shape: dict[str, Any], number: int) -> None:
    """Draws a LabelMe shape into [H, W]. Raises ValueError, KeyError or TypeError for a faulty one."""
    kind, points = shape.get("shape_type") or "polygon", np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind == "mask":
        _paste(values, shape, points, number)
        return
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if kind == "circle" and len(points) == 2:
        radius, turn = np.linalg.norm(points[1] - points[0]), np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    if kind in ("polygon", "rectangle", "circle") and len(points) >= 3:
        fill(values, points, number)
    elif kind not in ("point", "line", "linestrip", "points"):  # these enclose nothing
        raise ValueError(f"a {kind} of {len(points)} points, expected a polygon")


def _paste(values: np.ndarray, shape: dict[str, Any], points: np.ndarray, number: int) -> None:
    """Draws a mask, a PNG with its upper left corner at the first point, clipped to the image."""
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
        mask = np.array(image)
    if mask.ndim != 2 or not len(points):
        raise ValueError("a mask in colours, or without points, expected its upper left corner")
    rows, columns = np.nonzero(mask)
    left, top = np.round(points[0]).astype(int)
    rows, columns = rows + top, columns + left
    inside = (rows >= 0) & (columns >= 0) & (rows < values.shape[0]) & (columns < values.shape[1])
    values[rows[inside], columns[inside]] = number


def _name(given: object, path: Path) -> str:
    if not isinstance(given, (str, int)):
        raise UserError(f"{path}: a class is called {given!r}; give it a name")
    return str(given).strip()


def _numbers(names: list[str]) -> dict[str, int]:
    """Class number of each name, including names of background and of ignored regions."""
    if len(names) >= IGNORE:
        raise UserError(f"{len(names)} classes; at most {IGNORE - 1} fit into 8-bit masks")
    known = {name: number for number, name in enumerate(names, start=1)}
    return known | dict.fromkeys(NOTHING, 0) | dict.fromkeys(IGNORED, IGNORE)
