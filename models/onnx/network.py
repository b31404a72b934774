"""Networks in ONNX files, run by ONNX Runtime if it is installed, otherwise by OpenCV.

The input shape is parsed from the file, a protocol buffer, because OpenCV does not report it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.checkpoint import first_line
from utils.errors import UserError

Run = Callable[[np.ndarray], list[np.ndarray]]  # the input -> all outputs

# field numbers of onnx.proto
GRAPH, WEIGHTS, INPUTS = 7, 5, 11  # of the model; of its graph
NAME, WEIGHTS_NAME, TYPE, TENSOR, SHAPE, DIMENSION, SIZE = 1, 8, 2, 1, 2, 1, 1


@dataclass(frozen=True)
class OnnxNetwork:
    """Maps float32 of shape `takes` (0: any size) to the outputs.

    Raises UserError that begins with `what` if the input does not fit.
    """

    what: str
    takes: tuple[int, ...]
    reader: str  # the program that runs it
    run: Run

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        # OpenCV reads past the end of an input that is too small
        fits = len(values.shape) == len(self.takes) and all(
            wanted in (0, given) for wanted, given in zip(self.takes, values.shape, strict=True)
        )
        if not fits:
            raise UserError(f"{self.what}: takes {shown(self.takes)} (0: any size), not {shown(values.shape)}")
        try:
            return self.run(values)
        except Exception as error:  # ONNX Runtime raises a dozen classes of errors, OpenCV one
            raise UserError(f"{self.what}: cannot be used ({first_line(error)})") from None


def shown(shape: Sequence[int]) -> str:
    """1x3x320x320"""
    return "x".join(map(str, shape))


def open_onnx(path: Path, what: str) -> OnnxNetwork:
    """The network of a file. Raises UserError that begins with `what` if the file is no network or cannot be read."""
    if not path.is_file():
        raise UserError(f"{what}: no such file")
    try:
        takes = input_shape(path.read_bytes())
    except (ValueError, LookupError) as error:  # other formats run out of bytes or have unknown field types
        raise UserError(f"{what}: not an ONNX file ({first_line(error)})") from None
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return OnnxNetwork(what, takes, "OpenCV", _by_opencv(path, what))
    return OnnxNetwork(what, takes, "ONNX Runtime", _by_runtime(path, what))


def _by_runtime(path: Path, what: str) -> Run:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{what}: not a network that ONNX Runtime can read ({first_line(error)})") from None
    image = session.get_inputs()[0].name
    return lambda values: session.run(None, {image: values})


def _by_opencv(path: Path, what: str) -> Run:
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
        outputs = network.getUnconnectedOutLayersNames()
    except cv2.error as error:
        cure = "ONNX Runtime reads more: pip install onnxruntime"
        raise UserError(f"{what}: not a network that OpenCV can read ({first_line(error)}); {cure}") from None

    def run(values: np.ndarray) -> list[np.ndarray]:
        network.setInput(values)
        return list(network.forward(outputs))

    return run


def input_shape(content: bytes) -> tuple[int, ...]:
    """The shape of the first input that is no weight, 0 for an open size. Raises ValueError for another format."""
    graph = _first(memoryview(content), GRAPH)
    weights = {bytes(_first(found, WEIGHTS_NAME)) for number, found in _fields(graph) if number == WEIGHTS}
    inputs = [found for number, found in _fields(graph) if number == INPUTS]
    images = [found for found in inputs if bytes(_first(found, NAME)) not in weights]
    if not images:
        raise ValueError("it has no input")
    shape = _first(_first(_first(images[0], TYPE), TENSOR), SHAPE)
    dimensions = [found for number, found in _fields(shape) if number == DIMENSION]
    sizes = ([size for number, size in _fields(found) if number == SIZE] for found in dimensions)
    return tuple(_integer(found[0], 0)[0] if found else 0 for found in sizes)


def _first(message: memoryview, number: int) -> memoryview:
    """The content of the first field with this number."""
    for found, content in _fields(message):
        if found == number:
            return content
    raise ValueError("it is cut short, or of another format")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of the fields of a protocol buffer."""
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        if key & 7 == 2:  # text or message, preceded by its length
            size, at = _integer(message, at)
            end = at + size
        else:
            end = at + {1: 8, 5: 4}[key & 7] if key & 7 else _integer(message, at)[1]
        if end > len(message):
            raise ValueError("it is cut short, or of another format")
        yield key >> 3, message[at:end]
        at = end


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    """(value, end position) of a varint: groups of seven bits, the lowest first."""
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
