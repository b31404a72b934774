"""Text files, and names in messages; without torch, so that a configuration is read before it is imported."""

from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError


def require_file(path: Path, wanted: str = "") -> None:
    """UserError for a folder, and for a pipe, which would be waited for; nothing is said of what is not there."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file{wanted and f'; {wanted}'}")


def read_text(path: Path) -> str:
    """A text file in UTF-8; UserError when it cannot be read, or is of another encoding."""
    require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def few(names: Iterable[str]) -> str:
    """Names for a message, in order: all of them, or of more than three their number and the first."""
    listed = sorted(names)
    return f"{len(listed)}: {', '.join(listed[:3])}, ..." if len(listed) > 3 else ", ".join(listed)
