"""Reading and writing videos with OpenCV; frames are uint8 [H, W, 3] RGB."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.checkpoint import atomic
from utils.errors import UserError

LONGEST = 64  # bytes at the end of a file that may hold the maker
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def frames_per_second(path: Path) -> float:
    """Frame rate. Raises UserError for a file that is no video."""
    capture = cv2.VideoCapture(str(path))
    rate, opened = capture.get(cv2.CAP_PROP_FPS), capture.isOpened()
    capture.release()
    if not opened or rate <= 0:
        raise UserError(f"{path}: not a readable video; expected one of {', '.join(VIDEOS)}")
    return rate


def read_frames(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def frame_count(path: Path) -> int:
    """Number of frames according to the file, an estimate in some formats; 0 if unreadable."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return max(0, count)


def video_maker(path: Path) -> str:
    """The `maker` that `write_video` stored in an MP4 file; empty for any other file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST))
        _, found, maker = file.read().rpartition(b"free")
    return maker.decode(errors="replace") if found else ""


def write_video(path: Path, frames: Iterator[np.ndarray], rate: float, maker: str = "") -> int:
    """Writes frames of one size as MP4, atomically; returns their number. `maker` is stored in a `free` box at the end.

    Raises UserError without frames, or if the file lacks some: OpenCV does not report a full disk.
    """
    with atomic(path) as temporary:
        named = temporary.with_suffix(".mp4")  # OpenCV chooses the format by the ending
        writer, count = None, 0
        try:
            for frame in frames:
                if writer is None:
                    writer = cv2.VideoWriter(str(named), cv2.VideoWriter.fourcc(*"mp4v"), rate, frame.shape[1::-1])
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
                count += 1
            if writer is None:
                raise UserError(f"{path}: the video has no frame")
            writer.release()
            if frame_count(named) != count:
                raise UserError(f"{path}: cannot be written; is the disk full, or is OpenCV without the codec mp4v?")
            with named.open("ab") as file:
                file.write((8 + len(maker)).to_bytes(4, "big") + b"free" + maker.encode())
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return count
