"""ONNX files: the shape that a network asks for, and what is said of files that are none."""

import sys

import numpy as np
import pytest

from models.onnx.network import input_shape, open_onnx
from tests.models.onnx.onnx_file import field, pointwise_sigmoid, value
from utils.errors import UserError


def test_the_shape_of_the_input():
    assert input_shape(pointwise_sigmoid([[1, 0, 0]], 320, 1024)) == (1, 3, 320, 1024)
    assert input_shape(pointwise_sigmoid([[1, 0, 0]], "height", 40)) == (1, 3, 0, 40)
    assert input_shape(pointwise_sigmoid([[1, 0, 0]], 8, 9, listed=True)) == (1, 3, 8, 9)  # weights are no image


@pytest.mark.parametrize(
    "content",
    [b"", b"no network", pointwise_sigmoid([[1, 0, 0]], 8, 8)[:40], field(7, field(12, value("map", (1, 2)))), b"\xff"],
)
def test_other_files_are_one_line(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"^--model x: not an ONNX file \(.+\)$"):
        open_onnx(tmp_path / "x.onnx", "--model x")


@pytest.mark.parametrize("reader", ["OpenCV", "ONNX Runtime"])
def test_a_network_is_run(tmp_path, monkeypatch, reader):
    """Sums of two channels, halved, through the sigmoid; then an image of another size."""
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(pointwise_sigmoid([[0.5, 0.5, 0]], 4, 6))
    network = open_onnx(tmp_path / "x.onnx", "--model x")
    assert network.reader == reader and network.takes == (1, 3, 4, 6)
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 6)).astype(np.float32)
    expected = 1 / (1 + np.exp(-image[:, :2].mean(1, keepdims=True)))
    halved, sums = network(image)
    np.testing.assert_allclose(halved, expected, rtol=1e-5)
    np.testing.assert_allclose(sums, image[:, :2].mean(1, keepdims=True), rtol=1e-5)
    with pytest.raises(UserError, match=r"^--model x: takes 1x3x4x6 \(0: any size\), not 1x2x4x6$"):
        network(image[:, :2])
    with pytest.raises(UserError, match=r"^--model x: cannot be used \(.+\)$"):
        network(image.astype(str))


@pytest.mark.parametrize("reader", ["OpenCV", "ONNX Runtime"])
def test_an_unknown_operator_is_one_line(tmp_path, monkeypatch, reader):
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime")
    content = pointwise_sigmoid([[1, 0, 0]], 4, 4).replace(b"Sigmoid", b"Sigmoit")
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UserError, match=f"^--model x: not a network that {reader} can read") as error:
        open_onnx(tmp_path / "x.onnx", "--model x")
    assert ("pip install onnxruntime" in str(error.value)) == (reader == "OpenCV")
