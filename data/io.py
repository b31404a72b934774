"""Reading and writing of images uint8 [H, W, 3] RGB, label maps uint8 or uint16 [H, W], saliency maps and arrays."""

import mimetypes
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from utils.checkpoint import atomic, first_line
from utils.errors import UserError
from utils.log import log

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MaskRule = Literal["any", "official"]
HALF = 128  # threshold of grey saliency maps
EXIF_ORIENTATION = 0x0112
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 2**30  # OpenCV's limit for images; a damaged header may claim any size
GREY, PALETTE = 0, 3  # colour types of PNG


@dataclass(frozen=True)
class PngHeader:
    """The header of a PNG file."""

    width: int
    height: int
    depth: int  # bits per channel
    colour: int  # type: 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with transparency
    palette: bytes | None  # R, G, B of each number


def check_png(content: bytes, path: Path) -> PngHeader:
    """The header of a PNG file, after a check of every chunk's CRC, which detects any changed byte (1 ms per MB).

    Raises UserError for other formats, damage, and more than 2^30 pixels.
    """
    if not content.startswith(SIGNATURE):
        raise UserError(f"{path}: not a readable PNG ({'another format' if content else 'empty'})")
    header, palette, start = b"", None, len(SIGNATURE)
    while True:
        size, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        body = memoryview(content)[start + 4 : start + 8 + size]
        end = start + 8 + size + 4
        if end > len(content):
            raise UserError(f"{path}: not a readable PNG (cut short at byte {len(content)})")
        if zlib.crc32(body) != int.from_bytes(content[end - 4 : end], "big"):
            raise UserError(f"{path}: not a readable PNG (damaged between bytes {start} and {end})")
        if kind == b"IHDR":
            header = bytes(body[4:])
        elif kind == b"PLTE":
            palette = bytes(body[4:])
        elif kind == b"IEND":
            break
        start = end
    if len(header) < 10:
        raise UserError(f"{path}: not a readable PNG (no header)")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    if width * height > MOST_PIXELS:
        raise UserError(f"{path}: {width}x{height} pixels; expected at most 2^30 in all: cut it into tiles")
    return PngHeader(width, height, header[8], header[9], palette)


class OneSidedMask(UserError):
    """A saliency map without an object, or without background."""


class OtherKind(UserError):
    """An image or map of unsupported bit depth or channels."""


class MovedColours(UserError):
    """A palette that assigns PASCAL VOC's colours to other numbers."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The given files, and the images in the given folders. Raises UserError without any, or for two of one name."""
    found = []
    for path in paths:
        if path.is_dir():
            files = sorted(path.iterdir())
            found += [file for file in files if file.suffix.lower() in IMAGES]
            _warn_of_others(path, files)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such image or folder")
    twice = next((stem for stem, count in Counter(path.stem for path in found).items() if count > 1), None)
    if twice:
        raise UserError(f"{paths[0]}: two images are called '{twice}'; process them separately")
    if not found:
        raise UserError(f"{paths[0]}: no image in these folders; expected one of {', '.join(IMAGES)}")
    return found


def _warn_of_others(folder: Path, files: Sequence[Path]) -> None:
    """Logs a warning with the number of images in unsupported formats."""
    rest = [file.name for file in files if file.suffix.lower() not in IMAGES]
    left_out = [name for name in rest if (mimetypes.guess_type(name)[0] or "").startswith("image/")]
    if left_out:
        read, count = ", ".join(IMAGES), len(left_out)
        log.warning("%s: %d images left out, such as '%s'; supported are %s", folder, count, left_out[0], read)


def one_opencv_thread(_worker: int | None = None) -> None:
    """Makes OpenCV run in the calling thread of a worker process, instead of one thread per core.

    setNumThreads(1) would deadlock after a fork: it stops and awaits the parent's threads, which the child lacks.
    """
    cv2.setNumThreads(0)


def read_image(path: Path, as_shown: bool = False) -> np.ndarray:
    """The stored pixels of an image with 8 bits per channel, without EXIF rotation, as masks are drawn on them.

    `as_shown` applies the EXIF rotation, as viewers do. Raises UserError for truncated files and other depths.
    """
    content = read_bytes(path, "an image")
    if content.startswith(SIGNATURE):
        check_png(content, path)
    image = decode_image(content, path, 0 if as_shown else cv2.IMREAD_IGNORE_ORIENTATION)
    if image.dtype != np.uint8:  # the used bits are unknown: 12 of 16 would look black
        raise OtherKind(f"{path}: {8 * image.itemsize} bits per channel; expected an image of 8: convert it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_bytes(path: Path, what: str) -> bytes:
    """The content of a regular file. Raises UserError if it is unreadable or another kind, such as a pipe."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a file; expected {what}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {what}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {what}") from None


def decode_image(content: bytes, path: Path, flags: int) -> np.ndarray:
    """[H, W, 3] BGR at the depth of the file. Raises UserError if OpenCV cannot decode it."""
    encoded = np.frombuffer(content, np.uint8)
    try:  # imread fills the missing part of a truncated file with grey, imdecode rejects it
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | flags) if encoded.size else None
    except cv2.error as error:
        raise UserError(f"{path}: not a readable image ({error.err or 'refused by OpenCV'})") from None
    if image is None:
        raise UserError(f"{path}: not a readable image; empty, cut short or of another format")
    return image


def orientation(path: Path) -> int:
    """EXIF orientation: 1 (as stored) to 8; 3 is upside down, 5 to 8 exchange width and height."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises many types
        return 1


def read_label(path: Path) -> np.ndarray:
    """The values (not colours) of a palette or grey PNG: uint8, or uint16 for 16 bits. Raises UserError for others."""
    return _label(_read_png(path, wide=True), path)


def read_voc_label(path: Path) -> np.ndarray:
    """`read_label` for masks with PASCAL VOC's palette. Raises MovedColours if its colours have other numbers.

    Programs that optimise PNG files keep the colours and renumber them. A palette with any other colour is taken as the
    data set's own.
    """
    stored = _read_png(path, wide=True)
    values, palette = _label(stored, path), stored.header.palette
    if palette and not voc_palette().tobytes().startswith(palette):
        used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)[: len(palette) // 3]).tolist()
        numbers = [_voc_numbers().get(palette[3 * value : 3 * value + 3], -1) for value in used]
        moved = [(value, number) for value, number in zip(used, numbers, strict=True) if value != number]
        colors = {palette[at : at + 3] for at in range(0, len(palette), 3)}
        if moved and colors <= _voc_numbers().keys() and len(set(numbers)) == len(numbers):
            value, number = moved[0]
            wrong = f"its value {value} has PASCAL VOC's colour of class {number}"
            raise MovedColours(
                f"{path}: {wrong}; renumbered by a program that shrinks pictures? Take the original mask"
            )
    return values


def read_lowered(path: Path) -> np.ndarray:
    """The original values of a label PNG prepared for detectron2, which stores class 1 as 0 and 0 as 255; uint8."""
    return read_label(path).astype(np.uint8) + np.uint8(1)


def _label(stored: "Stored", path: Path) -> np.ndarray:
    if stored.values.ndim != 2:
        channels = stored.values.shape[-1]
        raise OtherKind(f"{path}: {channels} channels; expected one value per pixel (palette or grey PNG)")
    header = stored.header
    if header.colour == GREY and header.depth in (2, 4):  # Pillow scales these to 0 to 255
        return stored.values // np.uint8(255 // (2**header.depth - 1))
    return stored.values


def read_mask(path: Path, rule: MaskRule = "any", one_sided: bool = False) -> np.ndarray:
    """A saliency map as uint8 [H, W] of 0 and 1.

    any       maps of 0/1 and 0/255 as they are; other grey maps from 128 on. Raises UserError for colour images and
              other palettes, and OneSidedMask if no pixel or every pixel is salient, unless `one_sided`.
    official  as MaskContrast's loader: 255 in the first channel, or 1 with one bit per pixel; a 0/1 map is empty then
    """
    values, mode, _ = _read_png(path)
    if rule == "official":
        first = values if values.ndim == 2 else values[..., 0]
        return (first == (1 if mode == "1" else 255)).astype(np.uint8)
    if values.ndim == 3:  # grey maps may be saved with three equal channels, or with transparency
        colours = values[..., : 3 if values.shape[-1] >= 3 else 1]
        values = values[..., 0]
        if (colours != values[..., None]).any():
            raise OtherKind(f"{path}: a colour picture; expected a saliency map (0/255, 0/1, palette or grey)")
    found = np.flatnonzero(cv2.calcHist([values], [0], None, [256], [0, 256])).tolist()
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


class Stored(NamedTuple):
    """Values uint8 [H, W(, channels)] or uint16 [H, W], Pillow's mode, and the header."""

    values: np.ndarray
    mode: str
    header: PngHeader


def _read_png(path: Path, wide: bool = False) -> Stored:
    """The stored values. Raises UserError for damaged files, and for 16 bits unless `wide`."""
    content = read_bytes(path, "a PNG")
    header = check_png(content, path)
    try:
        with PngImageFile(BytesIO(content)) as image:  # Image.open rejects 180 million pixels and more
            values, mode = np.array(image), image.mode
    except Exception as error:  # Pillow raises many types for damaged files
        raise UserError(f"{path}: not a readable PNG ({first_line(error)})") from None
    if wide and mode.startswith("I"):  # older Pillow reads 16 bits as 32
        return Stored(values.astype(np.uint16), mode, header)
    if values.dtype not in (np.uint8, bool) or header.depth > 8:
        most = "16 bits per pixel (palette or grey PNG)" if wide else "8 bits per pixel (palette or grey PNG)"
        raise OtherKind(f"{path}: {header.depth} bits per channel; expected at most {most}")
    return Stored(values.astype(np.uint8), mode, header)


def write_label(path: Path, values: np.ndarray, maker: str = "", settled: bool = True) -> None:
    """Writes uint8 [H, W] as palette PNG with VOC's colours, uint16 as grey PNG of 16 bits, atomically.

    `maker` is stored in the file (data.predictions.maker_of); `settled` as in utils.checkpoint.atomic.
    """
    assert values.dtype in (np.uint8, np.uint16) and values.ndim == 2, (values.dtype, values.shape)
    image = Image.fromarray(np.ascontiguousarray(values))
    if values.dtype == np.uint8:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(voc_palette().tobytes())
    about = PngInfo()
    if maker:
        about.add_text("Software", maker)
    with atomic(path, settled) as temporary:
        image.save(temporary, format="PNG", pnginfo=about)


def write_picture(path: Path, image: np.ndarray, maker: str = "") -> None:
    """Writes uint8 [H, W, 3] RGB as JPEG, atomically. `maker` is stored in the file."""
    with atomic(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG", quality=90, comment=maker)


def write_grey(path: Path, values: np.ndarray) -> None:
    """Writes uint8 [H, W] as grey PNG, atomically."""
    assert values.dtype == np.uint8 and values.ndim == 2, (values.dtype, values.shape)
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(values)).save(temporary, format="PNG")


def write_array(path: Path, values: np.ndarray, settled: bool = True) -> None:
    """Writes an array as .npy, atomically."""
    with atomic(path, settled) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def read_array(path: Path) -> np.ndarray:
    """An array of numbers from .npy. Raises UserError if it is missing or damaged."""
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
    """PASCAL VOC's colour of each value, uint8 [256, 3]: the bits of the value, distributed over the channels."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for value in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[value, channel] |= ((value >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette


@cache
def _voc_numbers() -> dict[bytes, int]:
    """Number of each of PASCAL VOC's colours."""
    return {bytes(colour): number for number, colour in enumerate(voc_palette())}
