"""Checkpoints of the official MiB and PLOP programs."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.incremental.files import StepWeights, load_incremental
from models.incremental.inplace_abn import EPS, AbnDeepLab, AbnHead, convert_abn, rename_abn
from tests.conftest import official_abn
from utils.config.incremental import Model
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "incremental"


def test_keys_and_shapes_are_those_of_the_official_checkpoints():
    listed = json.loads((FIXTURES / "mib_plop_state_dict_keys.json").read_text())
    with torch.device("meta"):
        model = AbnDeepLab("resnet101", 16, listed["classes"])
    assert {key: list(value.shape) for key, value in official_abn(model.state_dict()).items()} == listed["state"]
    renamed = rename_abn({key.removeprefix("module."): torch.empty(0) for key in listed["state"]})
    assert renamed.keys() == {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}


def test_every_block_of_the_last_stage_is_dilated():
    for stride, last in ((16, (2, 2)), (8, (4, 4))):
        model = AbnDeepLab("resnet50", stride, [3])
        assert {block.conv2.dilation for block in model.backbone.layer4} == {last}
        assert model.backbone(torch.zeros(1, 3, 64, 64)).shape[-1] == 64 // stride


def test_activations_are_leaky_and_sums_follow_the_formula():
    torch.manual_seed(0)
    model = AbnDeepLab("resnet50", 16, [3]).eval()
    block, x = model.backbone.layer1[0], torch.randn(1, 64, 8, 8)
    inner = F.leaky_relu(block.bn1(block.conv1(x)), 0.01)
    inner = F.leaky_relu(block.bn2(block.conv2(inner)), 0.01)
    expected = F.leaky_relu(block.bn3(block.conv3(inner)) + block.downsample(x), 0.01)
    torch.testing.assert_close(block(x), expected)
    assert not any(isinstance(module, torch.nn.ReLU) for module in model.modules())


def test_pooling_is_global_up_to_32_cells_and_a_window_beyond():
    head = AbnHead(2, 4, (1,)).eval()
    small = torch.randn(1, 2, 32, 20)
    torch.testing.assert_close(head.pool(small), small.mean((2, 3), keepdim=True).expand_as(small))
    wide = torch.randn(1, 2, 32, 33)
    pooled = head.pool(wide)
    assert pooled.shape == wide.shape
    torch.testing.assert_close(pooled[..., :16], wide[..., :32].mean((2, 3), keepdim=True).expand(1, 2, 32, 16))
    torch.testing.assert_close(pooled[..., 16:], wide[..., 1:].mean((2, 3), keepdim=True).expand(1, 2, 32, 17))


def test_a_checkpoint_is_read_with_positive_scales(tmp_path):
    torch.manual_seed(0)
    model = AbnDeepLab("resnet18", 16, [4, 1])
    with torch.no_grad():
        model.backbone.bn1.weight.uniform_(0.5, 1)
    state = official_abn(model.state_dict())
    flipped = state | {"module.body.mod1.bn1.weight": -state["module.body.mod1.bn1.weight"]}
    torch.save({"epoch": 3, "model_state": flipped, "trainer_state": None}, tmp_path / "15-1-voc_MiB_1.pth")
    weights = StepWeights.read(tmp_path / "15-1-voc_MiB_1.pth")
    assert weights.heads == (4, 1) and not weights.unknown and weights.linear and weights.in_place_abn
    loaded = load_incremental(Model(backbone="resnet18"), weights).eval()
    torch.testing.assert_close(loaded.backbone.bn1.weight, model.backbone.bn1.weight + EPS)
    image = torch.randn(1, 3, 64, 64)
    expected = AbnDeepLab("resnet18", 16, [4, 1]).eval()
    expected.load_state_dict(rename_abn(convert_abn({k.removeprefix("module."): v for k, v in state.items()})))
    torch.testing.assert_close(loaded(image).logits, expected(image).logits)
    with pytest.raises(UserError, match="does not fit the network"):
        load_incremental(Model(backbone="resnet34"), weights)
