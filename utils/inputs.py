"""A record of the data files that a stage read, to notice later that they have changed.

The record lists every file that the stage looked for, with size and modification time; small folders also with content
hashes; missing files as missing. Paths are relative to the configured data folders, so that these may be moved. The
comparison takes one stat per file: no image is opened.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.checkpoint import write_text
from utils.config.common import Common

RECORD, FORMAT = "data.json", 1
BUDGET = 64 * 2**20  # bytes to hash: enough for all lists and masks of VOC, or for all of a small data set
ROOTS = ("root", "images", "sbd_root")  # keys of section `data` with folders; a new value does not change the result

Stamp = tuple[int, int]  # size in bytes, time of change in ns


class DataFiles:
    """The files that a stage looked for. `add` must come before they are read: it records their present state."""

    def __init__(self) -> None:
        self.stamps: dict[str, Stamp | None] = {}  # None: no such file
        self._written: tuple[Path, int] | None = None

    def add(self, paths: Iterable[Path | str | None]) -> None:
        for path in paths:
            name = str(path)
            if path is not None and name not in self.stamps:
                self.stamps[name] = stamp(name)

    def write(self, record: Path, cfg: Common) -> None:
        """Write the record atomically. Does nothing if it already lists the same files."""
        if self._written == (record, len(self.stamps)):
            return
        roots = {name: os.path.abspath(folder) for name, folder in data_roots(cfg).items()}
        by_folder: dict[str, dict[str, Stamp | None]] = {}
        for path, found in self.stamps.items():
            folder, name = os.path.split(os.path.abspath(path))
            by_folder.setdefault(folder, {})[name] = found
        hashes = _hashes(by_folder)
        files = {
            _placed(folder, roots): {
                name: found and [*found, *hashes.get((folder, name), ())] for name, found in names.items()
            }
            for folder, names in by_folder.items()
        }
        where = {name: os.path.realpath(folder) for name, folder in roots.items()}
        write_text(record, json.dumps({"format": FORMAT, "roots": where, "files": files}))
        self._written = record, len(self.stamps)


class Entry(NamedTuple):
    """A recorded file.

    path      where it is now
    recorded  [size, time] or [size, time, hash]; None if the file did not exist
    moved     its data folder is at another place than before, so that times may differ
    """

    path: str
    recorded: list[Any] | None
    moved: bool


def data_roots(cfg: Common) -> dict[str, Path]:
    """Key -> folder for the data folders of a configuration."""
    found = {name: getattr(cfg.data, name, None) for name in ROOTS}
    default = Path(os.environ.get("DATA_ROOT") or Path("datasets") / Path(cfg.data.dataset).name)
    found["root"] = found["root"] or default
    return {name: Path(folder).expanduser() for name, folder in found.items() if folder}


def changed_data(record: Path, cfg: Common) -> str | None:
    """The first recorded file that has changed, as "FILE has changed"; None if all are unchanged.

    Also None if there is no record, because the stage reads no data, and if there is no data root to compare with.
    """
    roots = data_roots(cfg)
    if not record.exists() or not roots["root"].is_dir():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        differing = (f"{entry.path} {how}" for entry in _entries(content, roots) if (how := _difference(entry)))
        return next(differing, None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{record} is damaged"


def stamp(path: str) -> Stamp | None:
    """Size and modification time of a file; None if it does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _entries(content: dict[str, Any], roots: Mapping[str, Path]) -> Iterator[Entry]:
    for place, names in content["files"].items():
        key, inside, rest = place.partition(":")
        folder = os.path.join(os.path.abspath(roots[key]), rest) if inside and key in roots else place
        moved = bool(inside) and os.path.realpath(roots.get(key, "")) != content["roots"][key]
        for name, recorded in names.items():
            yield Entry(os.path.join(folder, name), recorded, moved)


def _difference(entry: Entry) -> str | None:
    now = stamp(entry.path)
    if entry.recorded is None:
        return "is new" if now else None
    if now is None:
        return "is gone"
    size, changed, *content = entry.recorded
    if now == (size, changed):
        return None
    if now[0] == size and (content[0] == _hash(entry.path) if content else entry.moved):
        return None
    return "has changed"


def _placed(folder: str, roots: Mapping[str, str]) -> str:
    """`KEY:RELATIVE` for a folder inside a configured one, else the folder itself."""
    for name, root in sorted(roots.items(), key=lambda item: -len(item[1])):
        if folder == root or folder.startswith(root.rstrip("/") + "/"):
            return f"{name}:{folder[len(root) :].lstrip('/')}"
    return folder


def _hashes(by_folder: Mapping[str, Mapping[str, Stamp | None]]) -> dict[tuple[str, str], tuple[str]]:
    """(folder, name) -> hash, for the files of the smallest folders that fit into BUDGET together."""
    sizes = {folder: sum(found[0] for found in names.values() if found) for folder, names in by_folder.items()}
    hashes, left = {}, BUDGET
    for folder in sorted(sizes, key=lambda name: sizes[name]):
        left -= sizes[folder]
        if left < 0:
            break
        for name, found in by_folder[folder].items():
            if found:
                hashes[folder, name] = (_hash(os.path.join(folder, name)),)
    return hashes


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=8).hexdigest()
    except OSError:  # deleted in the meantime, or a folder
        return ""
