"""PNG files chunk by chunk: the checksums, which decoders skip, and how values are stored."""

import zlib
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 2**30  # as OpenCV's limit for pictures: a damaged header may claim anything
GREY, PALETTE = 0, 3  # colour types


@dataclass(frozen=True)
class PngHeader:
    """What stands before the pixels."""

    width: int
    height: int
    depth: int  # bits per channel
    colour: int  # type: 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with transparency
    palette: bytes | None  # R, G, B of each number


def check_png(content: bytes, path: Path) -> PngHeader:
    """The header of a PNG file; UserError when it is none, cut short or damaged, or claims more than 2^30 pixels.

    The CRC of every chunk is compared, which finds any changed byte; 1 ms for a megabyte.
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
