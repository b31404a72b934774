import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50, deeplabv3_resnet101

from models.segmentation import SegmentationNet, build_network
from models.segmentation_files import rename, to_torchvision
from utils.config.discovery import Model
from utils.errors import UserError

TINY = Model(backbone="resnet18", init="random", head_channels=8, atrous_rates=(1, 2, 3), dropout=0)
NORMS = nn.modules.batchnorm._BatchNorm


def tiny(num_classes: int = 5, **options) -> SegmentationNet:
    torch.manual_seed(0)
    return build_network(TINY.model_copy(update=options), num_classes)


def pixels(seed: int, batch: int = 2, height: int = 40, width: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def on_meta(name: str = "resnet50", num_classes: int = 16, **options) -> SegmentationNet:
    with torch.device("meta"):
        return build_network(Model(backbone=name, init="random", **options), num_classes)


@pytest.mark.parametrize("name, theirs", [("resnet50", deeplabv3_resnet50), ("resnet101", deeplabv3_resnet101)])
def test_keys_and_shapes_are_those_of_torchvision(name, theirs):
    with torch.device("meta"):
        expected = theirs(weights=None, weights_backbone=None, aux_loss=None, num_classes=16).state_dict()
    own = to_torchvision(on_meta(name).state_dict())
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in expected.items()}


@torch.no_grad()
def test_logits_equal_torchvision():
    torch.manual_seed(0)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=None, num_classes=7).eval()
    ours = build_network(Model(init="random"), 7).eval()
    ours.load_state_dict(rename(theirs.state_dict())[1])
    image = torch.randn(1, 3, 41, 57)
    torch.testing.assert_close(ours(image).logits, theirs(image)["out"])


@torch.no_grad()
def test_outputs():
    model = tiny(5).eval()
    logits, embedding = model(model.normalize(pixels(0, 2, 48, 40)))
    assert logits.shape == (2, 5, 48, 40) and embedding.shape == (2, 8, 6, 5)
    last = model.classifier
    coarse = torch.einsum("cd,bdhw->bchw", last.weight[:, :, 0, 0], embedding) + last.bias.view(1, -1, 1, 1)
    upsampled = F.interpolate(coarse, size=(48, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, upsampled)


def test_trained_tensors_are_the_published_ones():
    """layer3, layer4 and the decoder, BatchNorm weights included; counts of the official code."""
    model = on_meta(num_classes=16)
    assert (len(model.backbone_parameters()), len(model.decoder_parameters())) == (87, 23)
    assert sum(p.numel() for p in model.backbone_parameters()) == 22_063_104
    assert sum(p.numel() for p in model.decoder_parameters()) == 16_129_552
    assert sum(p.numel() for p in on_meta(num_classes=26).decoder_parameters()) == 16_132_122
    names = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad and "backbone" in name}
    assert names == {"layer3", "layer4"}


def test_trained_parts_can_be_chosen():
    model = on_meta("resnet18", trained=("layer4",))
    trains = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and n.startswith("backbone")}
    assert trains == {"layer4"}
    assert on_meta("resnet18", trained=()).backbone_parameters() == []
    with pytest.raises(UserError, match="model.trained: .*no part 'layer5'; its parts are conv1, .*layer4"):
        on_meta("resnet18", trained=("layer4", "layer5"))


FIXED = {
    "none": set(),
    "first_layers": {"bn1", "layer1", "layer2"},
    "backbone": {"bn1", "layer1", "layer2", "layer3", "layer4"},
    "all": {"bn1", "layer1", "layer2", "layer3", "layer4", "decoder"},
}


@pytest.mark.parametrize("freeze", FIXED)
def test_fixed_statistics_survive_train_mode(freeze):
    model = tiny(freeze_batchnorm=freeze)
    model.eval().train()
    modes = {"fixed": set(), "moving": set()}
    for name, module in model.named_modules():
        if isinstance(module, NORMS):
            part = name.removeprefix("backbone.").split(".")[0]
            modes["moving" if module.training else "fixed"].add(part)
    assert modes["fixed"] == FIXED[freeze]
    assert modes["moving"] == FIXED["all"] - FIXED[freeze]
    assert model.decoder.dropout.training  # dropout is on, whatever is fixed
    assert not any(module.training for module in model.eval().modules())


def test_a_step_changes_what_trains_and_nothing_else():
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.decoder_parameters() + model.backbone_parameters(), lr=0.1)
    model(model.normalize(pixels(0))).logits.square().mean().backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parameters = {k for k in before if not k.endswith(statistics)}
    trained = {k for k in parameters if k.startswith(("backbone.layer3", "backbone.layer4", "decoder", "classifier"))}
    assert changed & parameters == trained
    assert changed - parameters == {k for k in before if k.endswith(statistics) and k.startswith("decoder")}


@pytest.mark.parametrize("freeze", FIXED)
def test_sources_together_are_sources_apart(freeze):
    """Outputs, gradients and BatchNorm statistics; unlike one pass of the decoder over both."""
    together = tiny(freeze_batchnorm=freeze).double()
    apart = copy.deepcopy(together)
    images = [together.normalize(pixels(seed, batch, 24, 24)).double() for seed, batch in ((1, 2), (2, 3), (3, 2))]
    outputs, expected = together.forward_sources(images), [apart(image) for image in images]
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits)
        torch.testing.assert_close(ours.embedding, theirs.embedding)
    for results in (outputs, expected):
        sum((i + 1) * output.logits.sin().mean() for i, output in enumerate(results)).backward()
    for ours, theirs in zip(together.parameters(), apart.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None) == (not ours.requires_grad)
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(together.state_dict(), apart.state_dict())
    if freeze != "all":
        joined = copy.deepcopy(together)(torch.cat(images)).logits[:2]
        assert not torch.allclose(joined, outputs[0].logits, rtol=1e-3)


def test_a_copy_keeps_its_own_modes():
    model = tiny(freeze_batchnorm="first_layers")
    other = copy.deepcopy(model)
    other.eval()
    model.train()
    other.train()
    pairs = zip(model.modules(), other.modules(), strict=True)
    assert all(a.training == b.training and a is not b for a, b in pairs)
    other.backbone.layer4.requires_grad_(False)
    assert all(p.requires_grad for p in model.backbone.layer4.parameters())


def test_every_setting_reaches_the_network():
    model = tiny(3, head_channels=12, dropout=0.3, atrous_rates=(2, 5), output_stride=16, trained=("layer4",))
    assert [branch[0].dilation[0] for branch in list(model.decoder.aspp.convs)[1:-1]] == [2, 5]
    assert model.decoder.dropout.p == 0.3
    logits, embedding = model.eval()(torch.zeros(1, 3, 32, 64))
    assert logits.shape == (1, 3, 32, 64) and embedding.shape == (1, 12, 2, 4)
    assert not any(p.requires_grad for p in model.backbone.layer3.parameters())


@torch.no_grad()
def test_channels_last_changes_nothing():
    for name in ("resnet18", "efficientnet_lite0"):
        model = tiny(backbone=name).eval()
        image = model.normalize(pixels(0, 2, 64, 64))
        expected = model(image).logits
        moved = model.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(moved.logits, expected, rtol=1e-4, atol=1e-4)
