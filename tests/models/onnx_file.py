"""A network as an ONNX file, byte by byte: the package onnx is not needed."""

import numpy as np


def field(number: int, content: bytes | str | int) -> bytes:
    """One entry of a protocol buffer: a number, or text, bytes and messages with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    last = bytes([value & 127 | (128 if value > 127 else 0)])
    return last + varint(value >> 7) if value > 127 else last


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, 1) + field(8, name) + field(9, values.astype("<f4").tobytes())


def value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def pointwise_sigmoid(weight: list[list[float]], side: int) -> bytes:
    """image [1, 3, side, side] -> sigmoid of sums over channels with weights [D, 3], and the sums."""
    mix, out = np.array(weight)[..., None, None], (1, len(weight), side, side)
    graph = field(1, field(1, "image") + field(1, "weight") + field(2, "sum") + field(3, "mix") + field(4, "Conv"))
    graph += field(1, field(1, "sum") + field(2, "map") + field(3, "squash") + field(4, "Sigmoid"))
    graph += field(2, "tiny") + field(5, tensor("weight", mix)) + field(11, value("image", (1, 3, side, side)))
    graph += field(12, value("map", out)) + field(12, value("sum", out))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 11))
