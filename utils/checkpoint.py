"""Files that are either whole or absent, and the checkpoints among them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError

FORMAT = 1  # of our checkpoints; raise it when their contents change


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` only when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_list(path: Path, names: list[str]) -> None:
    write_text(path, "".join(f"{name}\n" for name in names))


def read_list(path: Path) -> list[str]:
    """Non-empty lines of a text file; UserError when it is missing."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a list with one image id per line"
        ) from None


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from None


def save(path: Path, state: dict) -> None:
    """Write a checkpoint atomically. `state` holds tensors and plain Python values only."""
    import torch  # takes seconds, and only checkpoints need it

    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path) -> dict:
    """Read one of our checkpoints on the CPU, without running code from it."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError ... for a damaged file
        raise UserError(f"{path}: not a readable checkpoint ({first_line(error)})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (format {FORMAT})")
    return state


def first_line(error: Exception) -> str:
    """The start of a library's message, for one line of our own."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of a folder's files; tells whether a stage's input changed."""
    sha = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        sha.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
