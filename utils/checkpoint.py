"""Atomic writing of files, reading of lists and JSON, and checkpoints."""

import codecs
import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.text import read_text, require_file

FORMAT = 1  # version of our checkpoints; increase it if their contents change


@contextlib.contextmanager
def atomic(path: Path, settled: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` if the block succeeds.

    The file is then synced to disk. With `settled` false it is not, and may be empty after a power failure until
    `settle` is called; this is for stages that write thousands of files and start over after a failure.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if settled:
            _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:  # for example a full disk: the message must name the file, not the temporary one
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Sync all files below a folder to disk. The first sync commits most of the changes; the others are fast."""
    for path in (folder, *folder.rglob("*")):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_list(path: Path, names: Sequence[str]) -> None:
    """Write one name per line. UserError for a name that would be read back differently."""
    lost = next((name for name in names if [name.strip()] != name.splitlines()), None)
    if lost is not None:
        raise UserError(
            f"{path}: {lost!r} cannot be a line of a list: it has spaces at an end or line breaks; rename it"
        )
    write_text(path, "".join(f"{name}\n" for name in names))


def read_list(path: Path) -> list[str]:
    """Ids of a list, one per line. UserError if it cannot be read or an id occurs twice."""
    return unique(read_lines(path), path)


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a text file in UTF-8, or UTF-16 with a byte order mark. UserError for other encodings."""
    wanted = "expected a list with one image id per line"
    require_file(path, wanted)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {wanted}") from None
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} is not in {error.encoding}; save the list as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path}: contains zero bytes (UTF-16 without a byte order mark?); save the list as UTF-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def unique(ids: list[str], where: Path | str) -> list[str]:
    """Return the ids. UserError that names `where` if one occurs twice."""
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{where}: image '{twice}' is twice in the list; keep it once")
    return ids


class Record(dict[str, Any]):
    """A JSON object read from a file. A missing key raises UserError that names the file."""

    def __init__(self, path: Path, values: dict[str, Any]):
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.path}: has no '{key}'; damaged or of another version, so make it again")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. UserError if the file cannot be read or holds another type."""
    try:
        value = json.loads(read_text(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable JSON file ({first_line(error)})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, not an object of keys and values; make it again")
    return Record(path, value)


def read_as(path: Path, kind: Any) -> Any:
    """A JSON object validated against a type such as dict[str, int]. UserError that names the first wrong value."""
    from pydantic import TypeAdapter, ValidationError  # slow to import

    try:
        return TypeAdapter(kind).validate_json(json.dumps(read_json(path)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: '{where}': {first['msg']}; damaged or of another version, so make it again") from None


def save(path: Path, state: dict, keep: Path | None = None) -> None:
    """Write a checkpoint atomically. `state` holds only tensors and plain Python values.

    The previous file is kept as `keep`. At any moment, at least one of the two files is complete.
    """
    from utils.torch_file import save_torch  # torch takes seconds to import

    with atomic(path) as temporary:
        save_torch(temporary, {"format": FORMAT, **state})
        if keep and path.exists():
            _link(path, keep)


def _link(path: Path, other: Path) -> None:
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:  # file system without links: rename instead
        os.replace(path, other)


def load(path: Path) -> dict:
    """Read one of our checkpoints to the CPU, without running code from it."""
    from utils.torch_file import read_torch

    state = read_torch(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (format {FORMAT})")
    return state


def first_line(error: Exception) -> str:
    """First line of a library's error message, at most 120 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as printed by `sha256sum`."""
    sha = hashlib.sha256()
    _add(sha, path)
    return sha.hexdigest()


def _add(sha: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            sha.update(block)


def digest(path: Path) -> str:
    """SHA-256 of names and contents of a file or of all files in a folder; used to detect changed inputs of a stage."""
    sha = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        sha.update(file.name.encode())
        _add(sha, file)
    return sha.hexdigest()
