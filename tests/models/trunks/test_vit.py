"""Vision transformers through a stand-in for timm with its interface."""

import sys
import types

import pytest
import torch
from torch import nn

from models.trunks.vit import build_vit, create_vit
from models.weakshot.maskformer import build_maskformer
from utils.config.weakshot import MaskTransformer
from utils.errors import UserError


class Transformer(nn.Module):
    """Tokens: one for the class, then the mean of each patch, row by row."""

    num_prefix_tokens, num_features = 1, 3

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Identity()
        self.patch_embed.patch_size = (4, 4)
        self.blocks = [None] * 8
        self.scale = nn.Parameter(torch.ones(3))
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

    def forward_features(self, image):
        tokens = nn.functional.avg_pool2d(image, 4).flatten(2).transpose(1, 2) * self.scale
        return torch.cat([torch.full_like(tokens[:, :1], 99.0), tokens], 1)

    def forward_intermediates(self, image, indices, norm, intermediates_only):
        """Behind block k: k + 1 times the mean of each patch."""
        assert norm and intermediates_only
        return [(k + 1) * nn.functional.avg_pool2d(image, 4) for k in indices]


@pytest.fixture
def timm(monkeypatch):
    module = types.ModuleType("timm")

    def create_model(name, pretrained, num_classes, dynamic_img_size):
        assert not pretrained and num_classes == 0 and dynamic_img_size
        if name != "vit_tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return Transformer()

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)


def test_patch_tokens_as_a_feature_map(timm, tmp_path):
    path = tmp_path / "vit.pth"
    torch.save({"state_dict": {"scale": torch.tensor([1.0, 2, 3]), "head.weight": torch.zeros(5, 3)}}, path)
    vit = build_vit("vit_tiny", str(path), image_size=8).eval()
    image = torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    image[:, :, :4, 8:] = 255
    features = vit(vit.normalize(image))
    assert features.shape == (1, 3, 2, 3) and vit.out_channels == 3
    assert features[0, :, 0, 2].tolist() == [2, 4, 6]  # (1 - 0.5) / 0.25 times the scale
    assert features[0, :, 1, 1].tolist() == [-2, -4, -6]


def test_stages_are_the_tokens_of_four_blocks_at_strides_4_to_32(timm):
    """Blocks 2, 4, 6 and 8; a patch of 4 pixels is to cover 16, so the image is seen at a quarter of its size."""
    vit = create_vit("vit_tiny", "random").eval()
    image = torch.ones(1, 3, 32, 128)
    image[..., 64:] = 3
    stages = vit.levels(image)
    assert [tuple(stage.shape) for stage in stages] == [(1, 3, 32 // s, 128 // s) for s in (4, 8, 16, 32)]
    assert [stage[0, 0, 0, 0].item() for stage in stages] == pytest.approx([2, 4, 6, 8], abs=0.1)
    assert stages[0][0, 0, 0, -1].item() == pytest.approx(6, abs=0.2)


def test_a_mask_transformer_on_a_frozen_one(timm):
    section = {"backbone": "vit", "vit": "vit_tiny", "init": "random", "freeze": True, "width": 32}
    cfg = MaskTransformer.model_validate(section | {"heads": 2, "layers": 1, "queries": 4, "feedforward": 8})
    model = build_maskformer(cfg, 5).train()
    output = model(torch.rand(2, 3, 64, 64))
    assert output.mask_logits.shape == (1, 2, 4, 16, 16) and output.class_logits.shape == (1, 2, 4, 6)
    output.mask_logits.sum().backward()
    assert model.backbone.network.scale.grad is None and model.pixel_decoder.layer_1.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "source", "size", "message"),
    [
        ("vit_small", "random", 8, "model.vit=vit_small: not a vision transformer of timm"),
        ("vit_tiny", "random", 10, "data.image_size=10: model.vit=vit_tiny needs a multiple of 4"),
        ("vit_tiny", "imagenet", 8, "model.init=imagenet: model.vit=vit_tiny reads a local file"),
        ("vit_tiny", "{wrong}", 8, "does not fit the network .*expected weights of vit_tiny"),
    ],
)
def test_mistakes(timm, tmp_path, name, source, size, message):
    torch.save({"other": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=message):
        build_vit(name, source.format(wrong=tmp_path / "wrong.pth"), size)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model.vit=vit_small_patch16_224: needs timm \(pip install timm;"):
        build_vit("vit_small_patch16_224", "random", 512)
