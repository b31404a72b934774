"""Reading and writing the files of a data set. Images are uint8 [H, W, 3] RGB, label maps uint8 [H, W]."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.checkpoint import atomic
from utils.errors import UserError

HALF = 128  # of the grey levels


def one_opencv_thread(_worker: int | None = None) -> None:
    """For a worker process, which would start one OpenCV thread per core.

    0 runs everything in the caller. 1 would first stop the threads of the parent process, which a fork does not have,
    and wait for them for ever.
    """
    cv2.setNumThreads(0)


def read_image(path: Path) -> np.ndarray:
    """The stored pixels, whatever turn EXIF asks for: masks were drawn on those. A file cut short is an error."""
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an image") from None
    # imread would fill what a cut file lacks with grey, imdecode refuses it
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if encoded.size else None
    if image is None:
        raise UserError(f"{path}: not a readable image; empty, cut short or of another format")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_label(path: Path) -> np.ndarray:
    """The values of a palette or grey PNG, not its colours."""
    values = _read_values(path)
    if values.ndim != 2:
        raise UserError(f"{path}: {values.shape[-1]} channels; expected one value per pixel (palette or grey PNG)")
    return values


def read_mask(path: Path) -> np.ndarray:
    """A saliency map as 0 and 1: the upper half of the grey levels is 1, unless the file holds 0 and 1 only.

    Of several channels the first counts.
    """
    values = _read_values(path)
    values = values if values.ndim == 2 else values[..., 0]
    return values if values.max(initial=0) <= 1 else (values >= HALF).astype(np.uint8)


def _read_values(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            values = np.array(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable PNG ({error})") from None
    if values.dtype not in (np.uint8, bool):
        raise UserError(f"{path}: {values.dtype} values; expected at most 8 bits per pixel (palette or grey PNG)")
    return values.astype(np.uint8)


def write_label(path: Path, values: np.ndarray) -> None:
    """Write uint8 [H, W] as a palette PNG with the VOC colours, atomically."""
    assert values.dtype == np.uint8 and values.ndim == 2, (values.dtype, values.shape)
    image = Image.fromarray(np.ascontiguousarray(values), mode="P")
    image.putpalette(voc_palette().tobytes())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


@cache
def voc_palette() -> np.ndarray:
    """The colours of PASCAL VOC for all 256 values, uint8 [256, 3]: bits of the value spread over the channels."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for value in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[value, channel] |= ((value >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette
