"""Pascal-Context names its 459 labels in a file; the classes of a class list are those of them that it names."""

from collections.abc import Mapping
from pathlib import Path

from data.label_map import LabelMap
from utils.errors import UserError
from utils.text import read_text

RENAMED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}  # class lists and labels.txt differ
LABELS = "labels.txt"


def raw_labels(label_folder: Path) -> dict[str, int]:
    """Name without spaces -> value in the label maps, of the labels.txt beside a folder of them, or in it.

    UserError when there is none, or when it is not "number: name" in each line.
    """
    folders = (label_folder.parent, label_folder, label_folder.parent.parent)
    path = next((folder / LABELS for folder in folders if (folder / LABELS).is_file()), None)
    if path is None:
        raise UserError(
            f"{label_folder.parent / LABELS}: no such file; expected the list of Pascal-Context's labels, 'number: "
            "name' in each line, which comes with the annotations"
        )
    return _read(path)


def _read(path: Path) -> dict[str, int]:
    names = {}
    for line in read_text(path).splitlines():
        number, colon, name = line.partition(":")
        if line.strip():
            if not colon or not number.strip().isdigit():
                raise UserError(f"{path}: '{line.strip()[:40]}' is not of the form 'number: name'")
            names[plain(name)] = int(number)
    return names


def plain(name: str) -> str:
    """A name as both lists have it."""
    name = name.replace(" ", "").strip()
    return RENAMED.get(name, name)


def context_map(label_folder: Path, classes: Mapping[str, int | None], rest: int | None) -> LabelMap:
    """From the 16-bit values of Pascal-Context to new ones, `classes` by name; all other labels become `rest`.

    UserError when a class is none of the 459 labels.
    """
    raw = raw_labels(label_folder)
    missing = [name for name in classes if plain(name) not in raw]
    if missing:
        raise UserError(
            f"{label_folder.parent / LABELS}: has no label called {', '.join(missing)}; of another data set?"
        )
    new: dict[int, int | None] = dict.fromkeys(range(max(256, *raw.values()) + 1), rest)
    new |= {raw[plain(name)]: number for name, number in classes.items()}
    return LabelMap.from_pairs(new)
