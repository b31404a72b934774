"""Pictures of a report for TensorBoard, in addition to the curves that the stages write."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import one_line
from utils.log import log


def open_board(folder: Path) -> Any:
    """TensorBoard's writer; None, after a warning, if it cannot be imported or opened."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # slow import

        return SummaryWriter(str(folder))
    except Exception as error:  # incompatible versions raise errors of any type
        log.warning("warning: no TensorBoard events (%s: %s)", type(error).__name__, one_line(error)[:120])
        return None


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write pictures uint8 [H, W, 3] by tag; those of an earlier report are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    board = open_board(folder) if pictures else None
    if board:
        for tag, picture in pictures.items():
            board.file_writer.add_summary(_summary(tag, picture))
        board.close()


def _summary(tag: str, picture: np.ndarray) -> Any:
    """The summary that TensorBoard's add_image makes, encoded by OpenCV in a tenth of the time."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    height, width, channels = picture.shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag=tag, image=image)])
