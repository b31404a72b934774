import struct

import numpy as np
import pytest

from data import word_files
from data.parquet import read_strings, unsnappy
from data.word_files import read_glove
from utils.errors import UserError


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def literal(content: bytes) -> bytes:
    """Snappy without any compression."""
    size = len(content) - 1
    tag = bytes([size << 2]) if size < 60 else bytes([61 << 2]) + size.to_bytes(2, "little")
    return varint(len(content)) + tag + content


def page(kind: int, content: bytes, count: int, encoding: int) -> bytes:
    """A page with its header: type, sizes, and at field 5 or 7 how many values, and their encoding."""
    packed = literal(content)
    sizes = b"\x15" + varint(2 * len(content)) + b"\x15" + varint(2 * len(packed))
    inner = b"\x15" + varint(2 * count) + b"\x15" + varint(2 * encoding)
    levels = b"\x15\x06\x15\x06\x1c\x18\x03max\x00" if kind == 0 else b"\x11"  # with statistics; is_sorted
    header = b"\x15" + varint(2 * kind) + sizes + (b"\x2c" if kind == 0 else b"\x4c") + inner + levels + b"\x00\x00"
    return header + packed


def strings(*words: str) -> bytes:
    return b"".join(struct.pack("<i", len(word.encode())) + word.encode() for word in words)


LEVELS = struct.pack("<i", 2) + b"\x08\x01"
DICTIONARY = page(2, strings("cow", "zebra", "canoe"), 3, 0)
# a run of four times index 1, then one group of eight two-bit indices: 2 0 1 2 0 0 0 0, three of them used
PACKED = 0b10_01_00_10.to_bytes(1, "little") + b"\x00"
BY_INDEX = page(0, LEVELS + b"\x02" + b"\x08\x01" + b"\x03" + PACKED, 7, 8)
PLAIN = page(0, LEVELS + strings("horse", "Sioux-schön"), 2, 0)
FOOTER = b"metadata" + struct.pack("<i", 8)
WORDS = ["zebra"] * 4 + ["canoe", "cow", "zebra", "horse", "Sioux-schön"]


def test_pages_with_a_dictionary_and_plain_ones(tmp_path):
    path = tmp_path / "words.parquet"
    path.write_bytes(b"PAR1" + DICTIONARY + BY_INDEX + PLAIN + FOOTER + b"PAR1")
    assert read_strings(path) == WORDS


def test_snappy_by_hand():
    assert unsnappy(varint(4) + bytes([3 << 2]) + b"abcd") == b"abcd"
    # a copy of 4 from 4 back (kind 1), one of 3 from 8 back (kind 2), one that overlaps itself: 7 from 2 back
    packed = varint(18) + bytes([3 << 2]) + b"abcd" + bytes([0 << 2 | 1, 4]) + bytes([2 << 2 | 2, 8, 0])
    assert unsnappy(packed + bytes([6 << 2 | 2, 2, 0])) == b"abcdabcdabc" + b"bcbcbcb"
    long = bytes(range(100)) * 3
    assert unsnappy(literal(long)) == long
    with pytest.raises(ValueError, match="a damaged page"):
        unsnappy(varint(5) + bytes([3 << 2]) + b"abcd")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"no such file at all", b"PAR1" + page(3, b"x", 1, 0) + FOOTER + b"PAR1"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "words.parquet").write_bytes(content)
    with pytest.raises((ValueError, LookupError)):
        read_strings(tmp_path / "words.parquet")


def test_the_glove_package(tmp_path, monkeypatch):
    data = tmp_path / "tiny_glove/data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    (data / "glove_6B_index.parquet").write_bytes(b"PAR1" + DICTIONARY + PLAIN + FOOTER + b"PAR1")
    np.save(data / "glove_6B_50d_emb.npy", np.arange(4, dtype=np.float32).reshape(2, 2))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(word_files, "GLOVE_PACKAGE", "tiny_glove")
    found = read_glove(["horse", "cow"])
    assert list(found) == ["horse"] and found["horse"].tolist() == [0, 1]
    np.save(data / "glove_6B_50d_emb.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"glove_6B_index\.parquet: 2 words for 3 vectors; of another version"):
        read_glove(["horse"])
    (data / "glove_6B_index.parquet").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"glove_6B_index\.parquet: cannot be read \(no Parquet file\)"):
        read_glove(["horse"])
