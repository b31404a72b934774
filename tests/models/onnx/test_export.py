"""Networks as ONNX files: what a reader of these computes is what torch computes."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.contrast.encoder import SALIENT, build_encoder
from models.incremental.scores import predicted_ids
from models.onnx import export as onnx_export
from models.onnx.export import Difference, export_onnx, network_size
from models.output import Output
from models.segmenter import Segmenter
from models.trunks import build_backbone
from models.weakshot.maskformer import MaskFormer
from tests.networks import SMALL, discovery_network, incremental_network, zero_shot_network
from utils.config.contrast import Encoder
from utils.errors import UserError
from utils.measure.protocol import most_likely
from utils.resize import resize_shorter, resize_square

NUMBERS = (0, 3, 7, 255, 9)  # of the classes; 255: a cluster without class


@pytest.fixture(scope="module")
def runtime():
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    return pytest.importorskip("onnxruntime")


def discovery() -> tuple:
    return discovery_network(5), most_likely, 5


def light() -> tuple:
    return discovery_network(5, decoder="mlp", backbone="efficientnet_lite0"), most_likely, 5


def incremental() -> tuple:
    """With an unknown head, and decided by sigmoids: the code of a CPU looks at values, which no file can."""
    network = incremental_network((1, 1, 4))
    return network, partial(_step_ids, unknown=True), 5


def _step_ids(output: Output, unknown: bool) -> torch.Tensor:
    return predicted_ids(output.logits, unknown, "bce")


def zero_shot() -> tuple:
    return zero_shot_network(5, low_channels=4), most_likely, 5


def saliency() -> tuple:
    return build_encoder(Encoder(**SMALL), 4), lambda output: (output.logits[:, 0] > SALIENT).long(), 2


class Pointwise(nn.Module):
    """The colours of a pixel are its logits."""

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return image.float()

    def forward(self, image: torch.Tensor) -> Output:
        return Output(image * 2, image)


def pointwise() -> tuple:
    return Pointwise(), most_likely, 3


SQUARE = partial(resize_square, "image", size=40)


def segmenter(make, resize=SQUARE) -> Segmenter:
    torch.manual_seed(0)
    network, decide, outputs = make()
    classes = [(number, f"clÄss {number}") for number in NUMBERS[:outputs]]
    return Segmenter(Path("best.pth"), network.eval(), decide, resize, outputs, classes, outputs, "ours")


@pytest.mark.parametrize("make", [discovery, light, incremental, zero_shot, saliency])
def test_the_file_gives_what_the_network_gives(runtime, make, tmp_path):
    network = segmenter(make)
    found = export_onnx(network, tmp_path / "made.onnx", (40, 56))
    assert found.logits <= 1e-4 * found.largest and found.agreeing > 0.999 and found.largest > 0
    session = runtime.InferenceSession(str(tmp_path / "made.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [("image", "tensor(uint8)", [3, 40, 56])]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == {str(number): name for number, name in network.classes}

    image = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 56), np.uint8)
    logits, label = session.run(["logits", "label"], {"image": image})
    with torch.no_grad():
        output = network.model(network.model.normalize(torch.from_numpy(image)))
    np.testing.assert_allclose(logits, output.logits.numpy(), rtol=0, atol=1e-4 * found.largest)
    numbers = np.array([number for number, _ in network.classes])[network.decide(output).numpy()]
    assert np.mean(label == numbers) > 0.999 and (len(np.unique(numbers)) > 1 or make is saliency)


def test_the_size_is_that_of_the_evaluation():
    square = segmenter(discovery)
    assert network_size(square, None) == network_size(square, (30, 90)) == (40, 40)
    free = segmenter(discovery, partial(resize_shorter, size=40, divisor=8))
    assert network_size(free, None) == (40, 40) and network_size(free, (30, 90)) == (40, 120)


def test_a_file_that_differs_is_not_written(runtime, tmp_path, monkeypatch):
    network, target = segmenter(pointwise), tmp_path / "made.onnx"
    monkeypatch.setattr(onnx_export, "_compare", lambda *_: Difference(0.5, 10.0, 1.0))
    with pytest.raises(UserError, match=r"made\.onnx: not written, .* \(logits differ by up to 0\.5 of 10, 100\.0 %"):
        export_onnx(network, target, (40, 40))
    monkeypatch.setattr(onnx_export, "_compare", lambda *_: Difference(0.0, 10.0, 0.99))
    with pytest.raises(UserError, match=r"99\.0 % of the pixels have the same class"):
        export_onnx(network, target, (40, 40))
    assert not list(tmp_path.iterdir())


def test_differences_by_hand():
    expected = [np.array([1.0, -4.0, 2.0]), np.array([0, 1, 1, 2])]
    found = [np.array([1.0, -3.5, 2.25]), np.array([0, 1, 1, 3])]
    assert onnx_export._compare(expected, found) == Difference(0.5, 4.0, 0.75)


def test_what_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    """A mask transformer, and packages that are not there."""
    for package in onnx_export.PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"^--format onnx needs onnx and onnxscript and onnxruntime \(pip"):
        export_onnx(segmenter(discovery), tmp_path / "made.onnx", (40, 40))
    monkeypatch.setattr(onnx_export, "_require_packages", lambda: None)

    def masks() -> tuple:
        sizes = {"queries": 7, "layers": 1, "width": 16, "heads": 2, "feedforward": 24}
        return MaskFormer(build_backbone("resnet18", 32, "random"), 5, **sizes), most_likely, 5

    with pytest.raises(UserError, match=r"best\.pth: a mask transformer; --format onnx writes networks with a logit"):
        export_onnx(segmenter(masks), tmp_path / "made.onnx", (64, 64))
    assert not list(tmp_path.iterdir())
