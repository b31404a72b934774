"""Reading of text files, and names in messages. Does not import torch, which takes seconds."""

from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError


def require_file(path: Path, wanted: str = "") -> None:
    """UserError for a folder, or a pipe, which would block. A missing file passes. `wanted` completes the message."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file{wanted and f'; {wanted}'}")


def read_text(path: Path) -> str:
    """Content of a UTF-8 text file. UserError if it cannot be read or has another encoding."""
    require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def few(names: Iterable[str]) -> str:
    """Sorted names for a message: all of them, or for more than three their number and the first three."""
    listed = sorted(names)
    return f"{len(listed)}: {', '.join(listed[:3])}, ..." if len(listed) > 3 else ", ".join(listed)
