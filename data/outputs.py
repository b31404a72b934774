"""Pictures written where others may lie: what is there is replaced only when the same program made it."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data.video import is_video, video_maker
from utils.errors import UserError


def maker_of(path: Path) -> str:
    """The program that wrote a PNG, JPEG (data.io) or MP4 file (data.video); empty when it does not say."""
    if is_video(path):
        return video_maker(path)
    try:
        with Image.open(path) as image:
            named = image.info.get("Software") or image.info.get("comment") or ""
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""
    return named.decode(errors="replace") if isinstance(named, bytes) else str(named)


def require_free(outputs: Iterable[Path], inputs: Iterable[Path], maker: str) -> None:
    """UserError when an output would replace an input, or anything else that `maker` did not write.

    Files are compared, not names: through links, and where upper and lower case are one.
    """
    given = {_file(path): path for path in inputs}
    for output in outputs:
        if not (output.is_symlink() or output.exists()):
            continue
        source = given.get(_file(output)) if output.exists() else None
        if source is not None:
            raise UserError(f"--to {output.parent}: {output} is an input ({source}); choose another folder with --to")
        if maker_of(output) != maker:
            raise UserError(f"--to {output.parent}: {output} is there and not made by {maker}; choose another folder")


def require_folder(path: Path) -> None:
    """UserError when `path` is a file, or below one."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"--to {path}: {there} is a file; give a folder, there or to be made")


def _file(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
