"""Frames of videos through OpenCV, uint8 [H, W, 3] RGB."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.checkpoint import atomic
from utils.errors import UserError

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def frames_per_second(path: Path) -> float:
    """UserError for a file that is no video."""
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


def write_video(path: Path, frames: Iterator[np.ndarray], rate: float) -> int:
    """Write frames of one size as MP4, atomically; how many. UserError when there is none."""
    with atomic(path) as temporary:
        named = temporary.with_suffix(".mp4")  # OpenCV goes by the ending
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
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return count
