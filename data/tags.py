"""Image-level tags of one's own: which classes an image shows, without a mask, as CSV or YAML."""

import csv
import io
from pathlib import Path
from typing import Any

from data.classes import ClassList, class_numbers
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError

HEADS = ("id", "image")  # first cell of a first line that names the columns
FORM = "expected a CSV file with lines 'id,class;class', or a YAML file with 'id: [class, class]'"


def read_tags(path: Path, classes: ClassList) -> dict[str, frozenset[int]]:
    """Image id -> class numbers. Ids are names without ending; classes names or numbers, background not among them.

    In a CSV file they are in further cells, or separated by semicolons in one. UserError names the file, the image and
    a tag that is no class.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        listed = read_yaml(path)
        if not isinstance(listed, dict):
            raise UserError(f"{path}: no mapping; {FORM}")
        rows = {str(name): tags for name, tags in listed.items()}
    else:
        rows = _rows(path)
    return {name: frozenset(class_numbers(tags, classes, f"{path}, image '{name}'")) for name, tags in rows.items()}


def _rows(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets save it, too
    except FileNotFoundError:
        raise UserError(f"data.tags={path}: no such file; give crop, image, or a file of tags") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: not a readable text file; {FORM}") from None
    rows: dict[str, list[int | str]] = {}
    for number, (name, *cells) in enumerate((row for row in csv.reader(io.StringIO(text)) if row), start=1):
        if number == 1 and name.strip().lower() in HEADS:
            continue
        if name.strip() in rows:
            raise UserError(f"{path}: image '{name.strip()}' is there twice; give all its tags in one line")
        tags = [tag.strip() for cell in cells for tag in cell.split(";")]
        rows[name.strip()] = [int(tag) if tag.isdecimal() else tag for tag in tags if tag]
    if not rows:
        raise UserError(f"{path}: no image; {FORM}")
    return rows
