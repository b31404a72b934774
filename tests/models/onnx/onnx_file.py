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


def value(name: str, shape: tuple[int | str, ...]) -> bytes:
    """An input or output; sizes that are left open have a name."""
    dims = b"".join(field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def pointwise_sigmoid(
    weight: list[list[float]], height: int | str, width: int | str, listed: bool = False, last: str = "map"
) -> bytes:
    """image [1, 3, height, width] -> sigmoid of sums over channels with weights [D, 3], and the sums.

    `listed`: the weights are among the inputs, as older exporters write them; last="sum": the sums come first.
    """
    mix, out = np.array(weight)[..., None, None], (1, len(weight), height, width)
    graph = field(1, field(1, "image") + field(1, "weight") + field(2, "sum") + field(3, "mix") + field(4, "Conv"))
    graph += field(1, field(1, "sum") + field(2, "map") + field(3, "squash") + field(4, "Sigmoid"))
    graph += field(2, "tiny") + field(5, tensor("weight", mix))
    graph += field(11, value("weight", mix.shape)) if listed else b""
    graph += field(11, value("image", (1, 3, height, width)))
    outputs = ("map", "sum") if last == "map" else ("sum",)
    graph += b"".join(field(12, value(name, out)) for name in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 11))
