"""Reading and writing the files of a data set. Images are uint8 [H, W, 3] RGB, label maps uint8 or uint16 [H, W]."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from utils.checkpoint import atomic, first_line
from utils.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MaskRule = Literal["any", "official"]
HALF = 128  # of the grey levels


class OneSidedMask(UserError):
    """A saliency map without an object, or without background."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images among the given files and in the given folders; UserError for none, and for two of one name."""
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such image or folder")
    twice = next((stem for stem, count in Counter(path.stem for path in found).items() if count > 1), None)
    if twice:
        raise UserError(f"{paths[0]}: two images are called '{twice}'; give them apart")
    if not found:
        raise UserError(f"{paths[0]}: no image in these folders; expected one of {', '.join(IMAGES)}")
    return found


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
    """The values of a palette or grey PNG, not its colours: uint8, or uint16 of a PNG with 16 bits."""
    values, _ = _read_png(path, wide=True)
    if values.ndim != 2:
        raise UserError(f"{path}: {values.shape[-1]} channels; expected one value per pixel (palette or grey PNG)")
    return values


def read_lowered(path: Path) -> np.ndarray:
    """The values of a label PNG of detectron2's, uint8, where class 1 is stored as 0 and 0 as 255, as they were."""
    return read_label(path).astype(np.uint8) + np.uint8(1)


def read_mask(path: Path, rule: MaskRule = "any", one_sided: bool = False) -> np.ndarray:
    """A saliency map as uint8 [H, W] of 0 and 1, whatever values it was written with.

    any       1 of a map of 0 and 1, 255 of one of 0 and 255, else what is at least 128 of a grey map; UserError for
              a colour picture or another palette map, and OneSidedMask where no pixel or every pixel is salient, unless
              `one_sided`
    official  as MaskContrast's loader, which refuses none: 255 of the first channel alone, so that a map of 0 and 1
              comes out empty; but 1 of a map stored with one bit per pixel
    """
    values, mode = _read_png(path)
    if rule == "official":
        first = values if values.ndim == 2 else values[..., 0]
        return (first == (1 if mode == "1" else 255)).astype(np.uint8)
    if values.ndim == 3:  # a grey map may have been saved with three equal channels, or with transparency
        colours = values[..., : 3 if values.shape[-1] >= 3 else 1]
        values = values[..., 0]
        if (colours != values[..., None]).any():
            raise UserError(f"{path}: a colour picture; expected a saliency map (0/255, 0/1, palette or grey)")
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    if mode == "P" and not (set(found) <= {0, 1} or set(found) <= {0, 255}):
        listed = ", ".join(map(str, found[:6]))
        raise UserError(f"{path}: palette values {listed}; expected 0 and 1 or 0 and 255 (is this a class map?)")
    mask = values if set(found) <= {0, 1} else (values >= HALF).astype(np.uint8)
    if mask.min() == mask.max() and not one_sided:
        which = "every" if mask.any() else "no"
        raise OneSidedMask(
            f"{path}: {which} pixel is salient; expected an object (1, 255 or grey from {HALF}) and the rest"
        )
    return mask


def _read_png(path: Path, wide: bool = False) -> tuple[np.ndarray, str]:
    """Stored values uint8 [H, W(, channels)], with `wide` also uint16 [H, W], and Pillow's name for their kind."""
    try:
        with Image.open(path) as image:
            values, mode = np.array(image), image.mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable PNG ({error})") from None
    if wide and mode.startswith("I"):  # older Pillow reads 16 bits as 32
        return values.astype(np.uint16), mode
    if values.dtype not in (np.uint8, bool):
        most = "16 bits per pixel (palette or grey PNG)" if wide else "8 bits per pixel (palette or grey PNG)"
        raise UserError(f"{path}: {values.dtype} values; expected at most {most}")
    return values.astype(np.uint8), mode


def write_label(path: Path, values: np.ndarray, maker: str = "") -> None:
    """Write uint8 [H, W] as a palette PNG with the VOC colours, uint16 as a grey PNG of 16 bits, atomically.

    `maker` is kept in the file (data.outputs.maker_of).
    """
    assert values.dtype in (np.uint8, np.uint16) and values.ndim == 2, (values.dtype, values.shape)
    image = Image.fromarray(np.ascontiguousarray(values))
    if values.dtype == np.uint8:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(voc_palette().tobytes())
    about = PngInfo()
    if maker:
        about.add_text("Software", maker)
    with atomic(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=about)


def write_picture(path: Path, image: np.ndarray, maker: str = "") -> None:
    """Write uint8 [H, W, 3] RGB as JPEG, atomically; for looking at. `maker` is kept in the file."""
    with atomic(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG", quality=90, comment=maker)


def write_grey(path: Path, values: np.ndarray) -> None:
    """Write uint8 [H, W] as a grey PNG, atomically."""
    assert values.dtype == np.uint8 and values.ndim == 2, (values.dtype, values.shape)
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(values)).save(temporary, format="PNG")


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def read_array(path: Path) -> np.ndarray:
    """An array of numbers from .npy; UserError when it is missing or damaged."""
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # numpy raises ValueError, EOFError, OSError, SyntaxError ... for damaged files
        raise UserError(f"{path}: not a readable array ({first_line(error)}); make it again") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise UserError(f"{path}: not an array of numbers; make it again")
    return values


@cache
def voc_palette() -> np.ndarray:
    """The colours of PASCAL VOC for all 256 values, uint8 [256, 3]: bits of the value spread over the channels."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for value in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[value, channel] |= ((value >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette
