import pytest
import torch

from models.trunks import BACKBONES, build_backbone
from utils.config.discovery import Model

BRIEF = "efficientnet_lite0"


def test_names_are_those_of_the_configuration():
    assert set(BACKBONES) == set(Model.model_fields["backbone"].annotation.__args__)


@pytest.mark.parametrize("name", BACKBONES)
def test_trained_parts_are_exactly_what_lies_behind_stride_8(name):
    with torch.device("meta"):
        backbone = build_backbone(name, 32, "random").eval()
    trained = [backbone.get_submodule(part) for part in backbone.trained]
    behind = {id(p) for part in trained for p in part.parameters()}
    sizes = {}

    def note(part, inputs, output):
        sizes[part] = (inputs[0].shape[-1], output.shape[-1])

    for part in trained:
        part.register_forward_hook(note)
    backbone(torch.empty(1, 3, 64, 64, device="meta"))
    assert sizes[trained[0]] == (64 // 8, 64 // 16)  # the first one has the stride from 8 to 16
    order = [id(p) in behind for p in backbone.parameters()]
    assert order == sorted(order) and any(order) and not all(order)  # untrained ones first, then trained ones only


def test_pixels_are_normalised_as_the_weights_expect():
    image = torch.tensor([0, 124, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    imagenet = [(0 / 255 - 0.485) / 0.229, (124 / 255 - 0.456) / 0.224, (255 / 255 - 0.406) / 0.225]
    expected = {name: imagenet for name in BACKBONES} | {BRIEF: [-127 / 128, -3 / 128, 1.0]}
    for name, values in expected.items():
        with torch.device("meta"):
            backbone = build_backbone(name, 8, "random")
        backbone.mean = torch.tensor(backbone.pixel_mean).view(1, 3, 1, 1)
        backbone.std = torch.tensor(backbone.pixel_std).view(1, 3, 1, 1)
        torch.testing.assert_close(backbone.normalize(image).flatten(), torch.tensor(values))
        assert not {"mean", "std"} & backbone.state_dict().keys()


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", BACKBONES)
def test_levels_end_with_the_features(name, stride):
    torch.manual_seed(0)
    backbone = build_backbone(name, stride, "random").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features, levels, (same, taps) = backbone(image), backbone.levels(image), backbone.taps(image)
    torch.testing.assert_close(levels[-1], features)
    sizes = [64 // min(whole, stride) for whole in (4, 8, 16, 32)]
    shapes = [(channels, side, side) for channels, side in zip(backbone.channels, sizes, strict=True)]
    assert [tuple(level.shape[1:]) for level in levels] == shapes == [tuple(tap.shape[1:]) for tap in taps]
    for level, again in zip(levels, same, strict=True):
        torch.testing.assert_close(again, level, rtol=1e-4, atol=1e-5)
    if name.startswith("resnet"):  # sums before the activation
        assert all((tap < 0).any() for tap in taps)
        for tap, level in zip(taps, levels, strict=True):
            torch.testing.assert_close(tap.relu(), level, rtol=1e-4, atol=1e-5)
