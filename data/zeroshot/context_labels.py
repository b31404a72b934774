"""Maps the 459 labels of Pascal-Context, named in labels.txt, to the classes of a class list."""

from collections.abc import Mapping
from pathlib import Path

from data.label_map import LabelMap
from utils.errors import UserError
from utils.text import read_text

RENAMED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}  # class list -> labels.txt
LABELS = "labels.txt"


def raw_labels(label_folder: Path) -> dict[str, int]:
    """Name without spaces -> value in the label maps, from the labels.txt in or next to the label folder.

    Raises UserError if there is none, or if a line is not "number: name".
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
    """Normalised name, equal in class lists and labels.txt."""
    name = name.replace(" ", "").strip()
    return RENAMED.get(name, name)


def context_map(label_folder: Path, classes: Mapping[str, int | None], rest: int | None) -> LabelMap:
    """Label map from Pascal-Context's 16-bit values to the values of `classes`; all other labels become `rest`.

    Raises UserError if a class is none of the 459 labels.
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
