"""U²-Net against its published size and names, blocks written out, and the authors' small network as an ONNX file."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

from models.saliency.u2net import RSU, U2NET, U2NETP, ConvBlock, U2Net


def test_published_sizes_and_names():
    with torch.device("meta"):
        large, small = U2Net(), U2Net(U2NETP)
    assert sum(p.numel() for p in large.parameters()) == 44_009_869
    assert sum(p.numel() for p in small.parameters()) == 1_131_181
    shapes = {key: tuple(value.shape) for key, value in large.state_dict().items()}
    assert shapes.keys() == small.state_dict().keys() and len(shapes) == 112 * 7 + 7 * 2
    expected = {
        "stage1.rebnconvin.conv_s1.weight": (64, 3, 3, 3),
        "stage1.rebnconv7.bn_s1.running_var": (32,),
        "stage2.rebnconv5d.conv_s1.weight": (32, 64, 3, 3),
        "stage4.rebnconv1d.conv_s1.weight": (512, 256, 3, 3),
        "stage5.rebnconv4.bn_s1.num_batches_tracked": (),
        "stage6.rebnconvin.conv_s1.bias": (512,),
        "stage5d.rebnconvin.conv_s1.weight": (512, 1024, 3, 3),
        "stage1d.rebnconv1.conv_s1.weight": (16, 64, 3, 3),
        "side1.weight": (1, 64, 3, 3),
        "side6.bias": (1,),
        "outconv.weight": (1, 6, 1, 1),
    }
    assert expected.items() <= shapes.items()


@pytest.mark.parametrize(
    "depth, dilated, rates", [(7, False, (1, 1, 1, 1, 1, 1, 2)), (4, False, (1, 1, 1, 2)), (4, True, (1, 2, 4, 8))]
)
def test_dilations(depth, dilated, rates):
    block = RSU(depth, 3, 2, 4, dilated)
    found = {name: conv.conv_s1.dilation[0] for name, conv in block.items()}
    assert found["rebnconvin"] == 1
    assert tuple(found[f"rebnconv{level}"] for level in range(1, depth + 1)) == rates
    assert tuple(found[f"rebnconv{level}d"] for level in range(1, depth)) == rates[:-1]


def grown(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return interpolate(x, like.shape[2:], mode="bilinear")


@torch.no_grad()
@pytest.mark.parametrize("dilated", [False, True])
def test_a_block_of_four_levels_written_out(dilated):
    torch.manual_seed(0)
    block, x = RSU(4, 3, 2, 4, dilated).eval(), torch.randn(2, 3, 11, 14)
    down = (lambda x: x) if dilated else (lambda x: max_pool2d(x, 2, ceil_mode=True))
    start = block["rebnconvin"](x)
    one = block["rebnconv1"](start)
    two = block["rebnconv2"](down(one))
    three = block["rebnconv3"](down(two))
    four = block["rebnconv4"](three)
    up = block["rebnconv3d"](torch.cat((four, three), 1))
    up = block["rebnconv2d"](torch.cat((grown(up, two), two), 1))
    up = block["rebnconv1d"](torch.cat((grown(up, one), one), 1))
    assert torch.equal(block(x), up + start)


@torch.no_grad()
def test_any_size_and_the_fused_map():
    torch.manual_seed(0)
    model = U2Net(U2NETP).eval()
    logits, sides = model(torch.randn(2, 3, 45, 70))
    assert logits.shape == (2, 1, 45, 70) and [side.shape for side in sides] == [logits.shape] * 6
    weight, bias = model["outconv"].weight[0, :, 0, 0], model["outconv"].bias
    fused = sum(w * side for w, side in zip(weight, sides, strict=True)) + bias
    torch.testing.assert_close(logits, fused)


def from_onnx(path: Path) -> U2Net:
    """U²-NetP with the weights of an ONNX file whose BatchNorms are folded into the convolutions."""
    engine = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []  # the one that shows its weights
    file = cv2.dnn.readNetFromONNX(str(path), *engine)
    weights = [blobs for blobs in (file.getLayer(name).blobs for name in file.getLayerNames()) if blobs]
    model = U2Net(U2NETP).eval()
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.bn_s1 = nn.Identity()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution, (weight, bias) in zip(convolutions, weights, strict=True):  # both in the order of computation
        convolution.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias.ravel())})
    return model


@torch.no_grad()
def test_published_small_network():
    path = Path(os.environ.get("U2NETP_ONNX", ""))
    if not path.is_file():
        pytest.skip("set U2NETP_ONNX to u2netp.onnx, as the package rembg downloads it")
    assert U2NETP != U2NET
    image = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((320, 320, 3)), (0, 0), 8)
    image = (image / image.std()).astype(np.float32).transpose(2, 0, 1)[None]
    reference = cv2.dnn.readNetFromONNX(str(path))
    reference.setInput(image)
    expected = reference.forward(reference.getUnconnectedOutLayersNames())
    logits, sides = from_onnx(path)(torch.from_numpy(image))
    for found, probability in zip((logits, *sides), expected, strict=True):
        np.testing.assert_allclose(found.sigmoid().numpy(), probability, atol=2e-4)
