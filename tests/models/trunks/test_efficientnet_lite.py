import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from models.trunks import build_backbone
from models.trunks.efficientnet_lite import STAGES, EfficientNetLite0, SameConv2d, join_phases, split_phases
from models.trunks.imagenet import lite0_file
from utils.errors import UserError

DOG = 12  # VOC class number
IMAGENET_DOGS = range(151, 276)  # domestic breeds, then wolves and wild dogs


@pytest.fixture(scope="module")
def networks() -> dict[int, EfficientNetLite0]:
    """The pretrained network at each output stride."""
    return {stride: build_backbone("efficientnet_lite0", stride, "imagenet").eval() for stride in (8, 16, 32)}


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def same_convolution(kernel: int, stride: int, row: list[float]) -> list[float]:
    """One row through a kernel of ones."""
    convolution = SameConv2d(1, 1, (1, kernel), (1, stride), bias=False)
    convolution.weight.data.fill_(1)
    return convolution(torch.tensor(row).view(1, 1, 1, -1)).flatten().tolist()


def test_same_padding_by_hand():
    row = [1.0, 2, 3, 4, 5, 6]
    assert same_convolution(3, 1, row) == [3, 6, 9, 12, 15, 11]
    assert same_convolution(3, 2, row) == [6, 12, 11]  # the one padded pixel is on the right
    assert same_convolution(5, 2, row) == [10, 20, 15]  # one on the left, two on the right
    assert same_convolution(3, 2, row[:5]) == [3, 9, 9]  # odd size: one on each side


def test_phases():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    phases = split_phases(x)
    assert phases[:, 0].tolist() == [
        [[0, 2], [8, 10]],  # even rows, even columns
        [[1, 3], [9, 11]],
        [[4, 6], [12, 14]],
        [[5, 7], [13, 15]],
    ]
    batch = torch.arange(3.0 * 5 * 8 * 12).view(3, 5, 8, 12)
    assert torch.equal(join_phases(split_phases(batch)), batch)
    assert torch.equal(join_phases(join_phases(split_phases(split_phases(batch)))), batch)


def test_size_of_the_network():
    network = EfficientNetLite0(32)
    head_and_classifier = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(p.numel() for p in network.parameters()) == 4_652_008 - head_and_classifier  # as published: 4.7 M
    assert len(network.blocks) == sum(stage[0] for stage in STAGES) == 16
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


@torch.no_grad()
def test_feature_size(networks, image):
    for stride, network in networks.items():
        assert network(image).shape == (2, 320, 64 // stride, 96 // stride)


@torch.no_grad()
def test_finer_strides_keep_the_pretrained_features(networks, image):
    """A strided "same" convolution is centred on odd pixels: plain cells are the odd ones of the finer map."""
    plain = networks[32](image)
    torch.testing.assert_close(networks[16](image)[:, :, 1::2, 1::2], plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(networks[8](image)[:, :, 3::4, 3::4], plain, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("stride", [8, 16])
def test_phases_compute_dilated_convolutions(networks, image, stride):
    """Slow reference: the same blocks with real dilation, at every position."""
    network = networks[stride]
    x, dilation = F.relu6(network.bn0(network.conv_stem(image))), 1
    for block in network.blocks:
        y = F.relu6(block.bn0(block.expand_conv(x))) if block.expands else x
        depthwise = block.depthwise_conv
        if dilation == 1:
            y = depthwise(y)
        else:
            pad = dilation * (depthwise.kernel_size[0] // 2)
            y = F.conv2d(y, depthwise.weight, None, 1, pad, dilation, depthwise.groups)
        y = block.bn2(block.project_conv(F.relu6(block.bn1(y))))
        x = x + y if x.shape == y.shape else y
        dilation *= 2 if block.splits else 1
    assert dilation == 32 // stride
    torch.testing.assert_close(network(image), x, rtol=1e-4, atol=1e-4)


def test_image_sides_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="data.image_size.*multiples of 32, got 100x64"):
        EfficientNetLite0(8)(torch.zeros(1, 3, 64, 100))


def classify(network: EfficientNetLite0, images: torch.Tensor) -> torch.Tensor:
    """ImageNet class of uint8 images [B, 3, 224, 224]: the features through the head of the weights file."""
    state = torch.load(lite0_file(), weights_only=True)
    x = F.conv2d(network(network.normalize(images)), state["_conv_head.weight"])
    norm = (state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
    return F.linear(x, state["_fc.weight"], state["_fc.bias"]).argmax(1)


@torch.no_grad()
def test_pretrained_network_recognises_dogs(networks):
    """On photographs that hold a dog and nothing else of VOC; a network with a wrong layer or input guesses at 12 %."""
    root = Path(os.environ.get("VOC_SUBSET", ""))
    if not os.environ.get("VOC_SUBSET") or not (root / "images").is_dir():
        pytest.skip("needs real photographs: set VOC_SUBSET to a folder with images/ and SegmentationClassAug/ of VOC")
    photographs = []
    for name in (root / "sets" / "val.txt").read_text().split():
        classes = set(np.unique(Image.open(root / "SegmentationClassAug" / f"{name}.png")).tolist()) - {0, 255}
        if classes == {DOG}:
            photograph = Image.open(root / "images" / f"{name}.jpg").convert("RGB")
            photographs.append(np.array(ImageOps.fit(photograph, (224, 224), Image.Resampling.BICUBIC)))
    assert len(photographs) >= 10
    found = classify(networks[32], torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2)).tolist()
    assert sum(top in IMAGENET_DOGS for top in found) >= 0.9 * len(found)
