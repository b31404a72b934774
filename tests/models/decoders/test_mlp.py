"""The mlp decoder against its formula; every trunk with every decoder; what freezing keeps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from models.decoders.mlp import MlpDecoder
from models.segmentation import SegmentationNet
from models.trunks import BACKBONES
from models.trunks.vit import create_vit
from tests.networks import discovery_network, incremental_network, zero_shot_network
from utils.config import discovery, incremental

DECODERS = ("deeplabv3", "deeplabv3plus", "mlp")


def test_mlp_is_its_formula():
    torch.manual_seed(0)
    decoder = MlpDecoder((3, 5), width=4, dropout=0.0).eval()
    norm = decoder.fuse[1]
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            value.copy_(torch.rand(4) + 0.5)
    fine, coarse = torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4)
    one, two = (
        torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], level) + layer.bias.view(1, -1, 1, 1)
        for layer, level in zip(decoder.reduce, (fine, coarse), strict=True)
    )
    joined = torch.cat([one, F.interpolate(two, size=(6, 8), mode="bilinear", align_corners=False)], dim=1)
    fused = torch.einsum("oi,bihw->bohw", decoder.fuse[0].weight[:, :, 0, 0], joined)
    mean, deviation = (v.view(1, -1, 1, 1) for v in (norm.running_mean, (norm.running_var + norm.eps).sqrt()))
    expected = ((fused - mean) / deviation * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).relu()
    torch.testing.assert_close(decoder([fine, coarse]), expected)


def test_dropout_acts_on_the_fused_features_alone():
    torch.manual_seed(0)
    decoder = MlpDecoder((3, 5), width=64, dropout=0.5)
    (features,) = decoder.parts([torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4)])
    dropped = decoder.join(decoder.drop([features]))
    torch.testing.assert_close(dropped[dropped > 0], 2 * features[dropped > 0])
    assert 0.4 < ((dropped == 0) & (features > 0)).sum() / (features > 0).sum() < 0.6


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_trunk_with_every_decoder(backbone, decoder):
    torch.manual_seed(0)
    model = zero_shot_network(4, backbone=backbone, decoder=decoder, output_stride=16)
    output = model(model.normalize(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)))
    stride = 16 if decoder == "deeplabv3" else 4
    assert output.logits.shape == (2, 4, 64, 96) and output.embedding.shape == (2, 8, 64 // stride, 96 // stride)
    output.logits.square().mean().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_vision_transformer_with_every_decoder(decoder):
    pytest.importorskip("timm")
    vit = create_vit("vit_tiny_patch16_224", "random")
    made = discovery_network(3, decoder=decoder)
    assert vit.channels == (192,) * 4
    kind = type(made.decoder)
    network = SegmentationNet(vit, kind(vit.channels, width=8), nn.Conv2d(8, 3, 1)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 64)).logits.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "make", [discovery_network, zero_shot_network, lambda n, **keys: incremental_network([n], **keys)]
)
def test_a_frozen_trunk_stays_as_it_is(make, decoder):
    torch.manual_seed(0)
    model = make(4, decoder=decoder, freeze=True).eval().train()
    before = copy.deepcopy(model.backbone.state_dict())
    assert not model.backbone_parameters() and all(p.requires_grad for p in model.decoder_parameters())
    optimizer = torch.optim.SGD(model.decoder_parameters(), lr=0.1)
    output = model(torch.randn(2, 3, 64, 64)).logits
    output.square().mean().backward()
    optimizer.step()
    assert all(value.equal(before[key]) for key, value in model.backbone.state_dict().items())
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())
    assert any(module.training for module in model.decoder.modules() if isinstance(module, nn.BatchNorm2d))


def test_sources_share_the_levels_of_a_frozen_trunk():
    together = discovery_network(4, decoder="mlp", freeze=True, dropout=0.0).double()
    apart = copy.deepcopy(together)
    images = [torch.randn(2, 3, 32, 32).double() for _ in range(2)]
    for ours, theirs in zip(together.forward_sources(images), [apart(image) for image in images], strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits)
    torch.testing.assert_close(together.state_dict(), apart.state_dict())


def test_defaults_of_the_mlp_decoder():
    section = incremental.Model(decoder="mlp")
    assert (section.output_stride, section.head_channels, section.dropout) == (32, 128, 0.1)
    assert discovery.Model(decoder="mlp", output_stride=16).output_stride == 16
    assert discovery.Model(decoder="mlp").freeze_batchnorm == "backbone"
    published = discovery.Model()
    assert (published.decoder, published.output_stride, published.head_channels) == ("deeplabv3", 8, 256)
    assert discovery.Model(freeze=True, trained=()).freeze
    with pytest.raises(ValidationError, match="freeze=true: no part of the trunk trains; set trained=null"):
        discovery.Model(freeze=True, trained=("layer4",))
