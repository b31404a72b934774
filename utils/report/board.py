"""Pictures of a report for TensorBoard, beside the curves that the stages have written."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import one_line
from utils.log import log


def open_board(folder: Path) -> Any:
    """TensorBoard's writer; None, after one warning, where it cannot be used."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # slow import

        return SummaryWriter(str(folder))
    except Exception as error:  # versions that do not fit each other raise anything
        log.warning("warning: no TensorBoard events (%s: %s)", type(error).__name__, one_line(error)[:120])
        return None


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """uint8 [H, W, 3] by their tags, in place of those of an earlier report."""
    shutil.rmtree(folder, ignore_errors=True)
    board = open_board(folder) if pictures else None
    if board:
        for tag, picture in pictures.items():
            board.add_image(tag, picture, dataformats="HWC")
        board.close()
