"""DeepLabV3+ of ZS3 against the official network: keys, outputs, dilations, files."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.deeplab_plus import DeepLabPlus, build_deeplab_plus, load_deeplab_plus, network_file, set_dilation
from models.trunks import build_backbone
from models.weights import WeightsFile
from tests.recipe_weights import recipe_weights
from utils.config.zeroshot import DeepLabPlus as Section
from utils.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures/zeroshot"
KEYS = json.loads(gzip.decompress((FIXTURES / "keys.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def official() -> DeepLabPlus:
    model = build_deeplab_plus(Section(init="random"), 21)
    model.load_state_dict(recipe_weights(model.state_dict()))
    return model.eval()


def test_keys_shapes_and_groups_are_official(official):
    assert [[key, list(value.shape)] for key, value in official.state_dict().items()] == KEYS["deeplab_21"]
    assert len(official.backbone_parameters()) == KEYS["one_x"]["tensors"]
    assert sum(p.numel() for p in official.backbone_parameters()) == KEYS["one_x"]["numel"]
    assert sum(p.numel() for p in official.parameters()) == KEYS["total_params"]
    assert len(official.decoder_parameters()) == 29


@torch.inference_mode()
def test_outputs_are_those_of_the_official_network(official):
    stored = np.load(FIXTURES / "deeplab_forward.npz")
    image = torch.from_numpy(np.random.RandomState(101).randn(2, 3, 65, 81).astype(np.float32))

    def same(name, values):
        np.testing.assert_allclose(values.numpy(), stored[name], atol=1e-4 * np.abs(stored[name]).max(), err_msg=name)

    stages = official.backbone.stages(image)
    same("low_sub", stages[0][:, ::32, ::4, ::5])
    same("backbone_sub", stages[-1][:, ::64])
    pyramid = official.aspp(stages[-1])
    same("aspp_sub", pyramid[:, ::16])
    features = official.decoder(pyramid, stages[0])
    same("feat_sub", features[:, ::16, ::2, ::2])
    assert features.min() >= 0
    logits = official.classify(features, image.shape[-2:])
    same("logits_sub", logits[:, :, ::8, ::8])
    assert (logits.argmax(1).numpy() != stored["argmax"]).sum() <= 5


@torch.inference_mode()
def test_stride_eight_with_the_same_weights(official):
    stored = np.load(FIXTURES / "deeplab_forward.npz")
    model = build_deeplab_plus(Section(init="random", output_stride=8, atrous_rates=(12, 24, 36)), 21)
    model.load_state_dict(official.state_dict())
    image = torch.from_numpy(np.random.RandomState(101).randn(2, 3, 65, 81).astype(np.float32))
    logits = model.eval()(image).logits[:, :, ::8, ::8]
    np.testing.assert_allclose(logits.numpy(), stored["logits_os8_sub"], atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("stride, third, fourth", [(16, [1, 1], [2, 4]), (8, [2, 2], [4, 8]), (32, [1, 1], [1, 2])])
def test_dilations_of_a_resnet(stride, third, fourth):
    model = build_deeplab_plus(Section(backbone="resnet18", init="random", output_stride=stride), 3)
    for layer, rates in ((model.backbone.layer3, third), (model.backbone.layer4, fourth)):
        assert [block.conv1.dilation[0] for block in layer] == rates == [block.conv2.padding[0] for block in layer]


def test_set_dilation_leaves_1x1_convolutions_alone():
    layer = build_backbone("resnet50", 16, "random").layer4
    set_dilation(layer, [3, 3, 3])
    assert layer[0].conv1.padding == (0, 0) and layer[0].downsample[0].padding == (0, 0)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet_v2", "resnet18"])
def test_small_backbones(backbone):
    model = build_deeplab_plus(Section(backbone=backbone, init="random", head_channels=8, atrous_rates=(1, 2)), 4)
    output = model(torch.randn(2, 3, 64, 96))
    assert output.logits.shape == (2, 4, 64, 96) and output.embedding.shape == (2, 8, 16, 24)


# ---- files


def small(classes: int = 4) -> DeepLabPlus:
    return build_deeplab_plus(
        Section(backbone="resnet18", init="random", head_channels=8, atrous_rates=(1, 2)), classes
    )


def test_files_of_the_official_code_and_of_step_two(tmp_path):
    source, target = small(), small()
    official = {"epoch": 3, "state_dict": source.state_dict(), "optimizer": {}, "best_pred": np.float64(0.3)}
    torch.save(official, tmp_path / "official.pth.tar")
    load_deeplab_plus(target, tmp_path / "official.pth.tar")
    assert all(a.equal(b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    inner = {f"network.{key}": value for key, value in source.state_dict().items()}
    file = WeightsFile(tmp_path / "ours", inner | {"generator.model.0.weight": torch.ones(1)})
    assert network_file(file).state.keys() == source.state_dict().keys()


def test_another_number_of_classes_is_refused_or_left_out(tmp_path):
    source, target = small(5), small()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "five.pth")
    with pytest.raises(UserError, match=r"five.pth: has 5 outputs, this run needs 4; check data.dataset"):
        load_deeplab_plus(target, tmp_path / "five.pth")
    before = target.classifier.weight.clone()
    load_deeplab_plus(target, tmp_path / "five.pth", other_classes=True)
    assert target.classifier.weight.equal(before) and target.decoder.conv1.weight.equal(source.decoder.conv1.weight)


def test_a_file_of_another_kind(tmp_path):
    torch.save({"state_dict": {"model.0.weight": torch.ones(2, 3)}}, tmp_path / "generator.pth")
    with pytest.raises(UserError, match=r"generator.pth: not a DeepLabV3\+ of ZS3 \(its keys begin with model\)"):
        load_deeplab_plus(small(), tmp_path / "generator.pth")


def test_sides_that_a_backbone_does_not_take():
    """The image is continued with its last pixels; what comes out is of its own size."""
    model = build_deeplab_plus(
        Section(backbone="efficientnet_lite0", init="random", head_channels=8, atrous_rates=(1, 2)), 4
    )
    image = torch.randn(1, 3, 50, 64)
    continued = torch.cat([image, image[:, :, -1:].expand(-1, -1, 14, -1)], dim=2)
    model.eval()
    torch.testing.assert_close(model(image).logits, model(continued).logits[:, :, :50], atol=1e-6, rtol=0)


def test_parts_of_the_backbone_that_train():
    section = Section(backbone="resnet18", init="random", head_channels=8, atrous_rates=(1, 2), trained=("layer4",))
    model = build_deeplab_plus(section, 3)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".")[1] for p in model.backbone_parameters()} == {"layer4"}
    assert len(model.decoder_parameters()) == len([*model.aspp.parameters(), *model.decoder.parameters()])
