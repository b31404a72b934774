"""Files with class names and class colours, as users and annotation tools write them."""

import re
from collections.abc import Iterable
from pathlib import Path

from utils.checkpoint import read_list
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError

Color = tuple[int, int, int]
CVAT = re.compile(r"(?P<name>[^:]+):(?P<color>\d+,\d+,\d+):.*")  # a line of CVAT's labelmap.txt


def require_distinct(names: Iterable[str], where: Path | str) -> list[str]:
    """The distinct names, in order. Raises UserError for an empty or multi-line name, and for two names that differ
    only in capitals or spaces, a typical annotation mistake.
    """
    known: dict[str, str] = {}
    for name in names:
        if not name or len(name.splitlines()) > 1:
            raise UserError(f"{where}: a class is called {name!r}; give it a name of one line")
        other = known.setdefault("".join(name.split()).casefold(), name)
        if other != name:
            raise UserError(f"{where}: classes '{other}' and '{name}' differ in capitals or spaces alone; use one name")
    return list(known.values())


def read_names(path: Path) -> list[str]:
    """Class names, background first: one per line, or a YAML list. Raises UserError for repeats or fewer than two."""
    if path.suffix in (".yaml", ".yml"):
        listed = read_yaml(path)
        names = [str(name) for name in listed] if isinstance(listed, list) else []
    else:
        names = read_list(path)
    if not 2 <= len(set(names)) == len(names):
        raise UserError(f"{path}: expected different class names, one per line, background first")
    return require_distinct(names, path)


def read_colors(path: Path) -> dict[Color, str]:
    """Colour -> class name, from lines `name,red,green,blue`, optionally with a header, or CVAT's labelmap.txt."""
    found: dict[Color, str] = {}
    for place, line in enumerate(read_list(path)):
        match = CVAT.fullmatch(line)
        cells = [match["name"], *match["color"].split(",")] if match else re.split(r"[,;\t]", line)
        cells = [cell.strip().strip('"') for cell in cells]
        if line.startswith("#") or (place == 0 and not any(cell.isdecimal() for cell in cells)):
            continue  # comment or header
        numbers = [int(cell) for cell in cells[1:] if cell.isdecimal()]
        if len(cells) != 4 or len(numbers) != 3 or max(numbers) > 255 or not cells[0]:
            raise UserError(f"{path}: line '{line}'; expected name,red,green,blue with colours from 0 to 255")
        color = numbers[0], numbers[1], numbers[2]
        if color in found:
            raise UserError(
                f"{path}: '{found[color]}' and '{cells[0]}' have the same colour {color}; give each another one"
            )
        found[color] = cells[0]
    if not found:
        raise UserError(f"{path}: no line name,red,green,blue")
    require_distinct(found.values(), path)
    return found
