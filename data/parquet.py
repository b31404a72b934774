"""One column of strings of a Parquet file, without pyarrow: snappy pages, plain or with a dictionary.

Enough for the list of words that comes with the optional GloVe package, which has no reader of its own.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"PAR1"
DATA_PAGE, DICTIONARY_PAGE = 0, 2
PLAIN, BY_DICTIONARY = 0, (2, 8)  # encodings
STRUCT, BINARY, TRUE, FALSE = 12, 8, 1, 2  # types of Thrift's compact protocol
INTEGERS = (3, 4, 5, 6)


class Page(NamedTuple):
    """Fields of a page header by their number in parquet.thrift."""

    kind: int
    packed: int  # bytes
    num_values: int
    encoding: int


def read_strings(path: Path) -> list[str]:
    """The strings of a file with one optional column of them. ValueError for another kind of file."""
    content = path.read_bytes()
    if len(content) < 12 or content[:4] != MAGIC or content[-4:] != MAGIC:
        raise ValueError("no Parquet file")
    end = len(content) - 8 - struct.unpack("<i", content[-8:-4])[0]
    words: list[bytes] = []
    known: list[bytes] = []
    at = len(MAGIC)
    while at < end:
        page, at = _page(content, at)
        values = unsnappy(content[at : at + page.packed])
        at += page.packed
        if page.kind == DICTIONARY_PAGE:
            known = _plain(values, 0, page.num_values)
        elif page.kind == DATA_PAGE:
            start = 4 + struct.unpack_from("<i", values)[0]  # behind the levels, which say that no value is missing
            if page.encoding == PLAIN:
                words += _plain(values, start, page.num_values)
            elif page.encoding in BY_DICTIONARY:
                words += [known[index] for index in _indices(values, start, page.num_values)]
            else:
                raise ValueError(f"pages of encoding {page.encoding}")
        else:
            raise ValueError(f"pages of type {page.kind}")
    return [word.decode() for word in words]


def unsnappy(packed: bytes) -> bytes:
    """Bytes that were compressed by snappy's raw format."""
    length, at = _varint(packed, 0)
    out = bytearray()
    while at < len(packed):
        tag = packed[at]
        kind, at = tag & 3, at + 1
        if kind == 0:  # as they are
            size = tag >> 2
            if size >= 60:
                extra = size - 59
                size = int.from_bytes(packed[at : at + extra], "little")
                at += extra
            out += packed[at : at + size + 1]
            at += size + 1
            continue
        if kind == 1:  # a copy of what came before
            size, back = 4 + (tag >> 2 & 7), (tag >> 5) << 8 | packed[at]
            at += 1
        else:
            width = 2 if kind == 2 else 4
            size, back = 1 + (tag >> 2), int.from_bytes(packed[at : at + width], "little")
            at += width
        start = len(out) - back
        if back >= size:
            out += out[start : start + size]
        else:  # overlaps what it makes
            out += (out[start:] * (size // back + 1))[:size]
    if len(out) != length:
        raise ValueError("a damaged page")
    return bytes(out)


def _page(content: bytes, at: int) -> tuple[Page, int]:
    fields, at = _thrift(content, at)
    inner = fields.get(5) or fields.get(7) or {}  # header of a data page, of a dictionary page
    return Page(fields[1], fields[3], inner[1], inner[2]), at


def _thrift(content: bytes, at: int) -> tuple[dict, int]:
    """Fields of a struct of the compact protocol by number, and where it ends; no lists, which page headers lack."""
    fields: dict = {}
    number = 0
    while content[at]:
        step, kind = content[at] >> 4, content[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _zigzag(content, at)
        if kind in INTEGERS:
            fields[number], at = _zigzag(content, at)
        elif kind == BINARY:
            size, at = _varint(content, at)
            at += size
        elif kind == STRUCT:
            fields[number], at = _thrift(content, at)
        elif kind not in (TRUE, FALSE):
            raise ValueError("an unknown page header")
    return fields, at + 1


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _zigzag(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _plain(values: bytes, at: int, count: int) -> list[bytes]:
    """Strings with their length, 4 bytes, before them."""
    found = []
    for _ in range(count):
        end = at + 4 + int.from_bytes(values[at : at + 4], "little")
        found.append(values[at + 4 : end])
        at = end
    return found


def _indices(values: bytes, at: int, count: int) -> list[int]:
    """Runs of one index, and groups of eight of so many bits each, by turns."""
    found: list[int] = []
    width, at = values[at], at + 1
    while len(found) < count:
        header, at = _varint(values, at)
        if header & 1:
            size = (header >> 1) * width
            bits = np.unpackbits(np.frombuffer(values, np.uint8, size, at), bitorder="little").reshape(-1, width)
            found += (bits.astype(np.int64) << np.arange(width)).sum(1).tolist()
            at += size
        else:
            size = (width + 7) // 8
            found += [int.from_bytes(values[at : at + size], "little")] * (header >> 1)
            at += size
    return found[:count]
