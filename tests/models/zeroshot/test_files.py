"""Networks of ZS3Net against the official one: keys, outputs, files."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.segmentation import SegmentationNet, build_network
from models.weights import WeightsFile
from models.zeroshot.files import load_zero_shot_network, read_zero_shot, rename_official
from tests.networks import discovery_network, zero_shot_network
from tests.recipe_weights import recipe_weights
from utils.config.zeroshot import Model
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures/zeroshot"
KEYS = json.loads(gzip.decompress((FIXTURES / "keys.json.gz").read_bytes()))


def official_weights() -> dict[str, torch.Tensor]:
    """The recipe's weights by official key."""
    shapes = {key: torch.empty(shape, device="meta") for key, shape in KEYS["deeplab_21"]}
    return recipe_weights(shapes)


@pytest.fixture(scope="module")
def official() -> SegmentationNet[nn.Conv2d]:
    model = build_network(Model(init="random"), 21)
    load_zero_shot_network(model, WeightsFile(Path("official.pth"), official_weights()))
    return model.eval()


def test_keys_shapes_and_groups_are_official(official):
    shapes = {key: torch.empty(shape, device="meta") for key, shape in KEYS["deeplab_21"]}
    own = [(key, value.shape) for key, value in official.state_dict().items()]
    assert [(key, value.shape) for key, value in rename_official(shapes).items()] == own
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

    levels = official.backbone.levels(image)
    same("low_sub", levels[0][:, ::32, ::4, ::5])
    same("backbone_sub", levels[-1][:, ::64])
    same("aspp_sub", official.decoder.parts(levels)[0][:, ::16])
    features = official.features(image)
    same("feat_sub", features[:, ::16, ::2, ::2])
    assert features.min() >= 0
    logits = official.classify(features, image.shape[-2:])
    same("logits_sub", logits[:, :, ::8, ::8])
    assert (logits.argmax(1).numpy() != stored["argmax"]).sum() <= 5


@torch.inference_mode()
def test_stride_eight_with_the_same_weights(official):
    stored = np.load(FIXTURES / "deeplab_forward.npz")
    model = build_network(Model(init="random", output_stride=8, atrous_rates=(12, 24, 36)), 21)
    model.load_state_dict(official.state_dict())
    image = torch.from_numpy(np.random.RandomState(101).randn(2, 3, 65, 81).astype(np.float32))
    logits = model.eval()(image).logits[:, :, ::8, ::8]
    np.testing.assert_allclose(logits.numpy(), stored["logits_os8_sub"], atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("stride, third, fourth", [(16, [1, 1], [2, 4]), (8, [2, 2], [4, 8]), (32, [1, 1], [1, 2])])
def test_multi_grid_of_a_resnet(stride, third, fourth):
    model = zero_shot_network(3, output_stride=stride)
    for layer, rates in ((model.backbone.layer3, third), (model.backbone.layer4, fourth)):
        assert [block.conv1.dilation[0] for block in layer] == rates == [block.conv2.padding[0] for block in layer]


# ---- files


def test_files_of_the_official_code_and_of_step_two(tmp_path):
    source, target = build_network(Model(init="random"), 21), build_network(Model(init="random"), 21)
    made = official_weights()
    load_zero_shot_network(source, WeightsFile(tmp_path / "x", made))
    content = {"epoch": 3, "state_dict": made, "optimizer": {}, "best_pred": np.float64(0.3)}
    torch.save(content, tmp_path / "official.pth.tar")
    load_zero_shot_network(target, tmp_path / "official.pth.tar")
    assert all(a.equal(b) for a, b in zip(made.values(), target.state_dict().values(), strict=True))
    inner = {f"network.{key}": value for key, value in source.state_dict().items()}
    file = WeightsFile(tmp_path / "ours", inner | {"generator.model.0.weight": torch.ones(1)})
    assert read_zero_shot(file).state.keys() == source.state_dict().keys()


def test_another_number_of_classes_is_refused_or_left_out(tmp_path):
    source, target = zero_shot_network(5), zero_shot_network(4)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "five.pth")
    with pytest.raises(UserError, match=r"five.pth: has 5 outputs, this run needs 4; check data.dataset"):
        load_zero_shot_network(target, tmp_path / "five.pth")
    before = target.classifier.weight.clone()
    load_zero_shot_network(target, tmp_path / "five.pth", other_classes=True)
    assert target.classifier.weight.equal(before)
    assert target.decoder.low[0].weight.equal(source.decoder.low[0].weight)


def test_files_of_other_kinds(tmp_path):
    torch.save({"state_dict": {"model.0.weight": torch.ones(2, 3)}}, tmp_path / "generator.pth")
    with pytest.raises(UserError, match=r"generator.pth: not a network of zero-shot .* \(its keys begin with model\)"):
        load_zero_shot_network(zero_shot_network(4), tmp_path / "generator.pth")
    torch.save({"state_dict": discovery_network(4).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth: does not fit the network \(.*decoder.low.0.weight is missing"):
        load_zero_shot_network(zero_shot_network(4), tmp_path / "other.pth")
