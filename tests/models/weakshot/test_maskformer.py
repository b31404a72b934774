"""MaskFormer against the official network, and what does not depend on its weights."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from models.trunks import build_backbone
from models.weakshot.mask_decoder import sine_position
from models.weakshot.mask_scores import semantic_scores
from models.weakshot.maskformer import MaskFormer, WordClasses, build_maskformer, maskformer_groups
from models.weakshot.maskformer_files import load_maskformer
from models.weakshot.simnet import SimNet
from models.weights import WeightsFile
from tests.recipe_weights import recipe_weights

FIXTURES = Path(__file__).parents[2] / "fixtures/weakshot"
KEYS = json.loads(gzip.decompress((FIXTURES / "keys.json.gz").read_bytes()))
SECTION = {
    **{"backbone": "resnet18", "output_stride": 32, "init": "random", "queries": 9, "layers": 1},
    **{"width": 8, "heads": 1, "feedforward": 8, "dropout": 0.0, "freeze": False},
}
RATES = SimpleNamespace(lr=1e-4, backbone_lr_factor=0.1)


def tiny(backbone: str = "resnet18", classes: int = 5, **sizes) -> MaskFormer:
    torch.manual_seed(0)
    sizes = {"queries": 7, "layers": 2, "width": 16, "heads": 2, "feedforward": 24} | sizes
    return MaskFormer(build_backbone(backbone, 32, "random"), classes, **sizes)


@pytest.fixture(scope="module")
def official() -> MaskFormer:
    """The published network with the weights that anyone can draw again."""
    shapes = {key: torch.empty(shape) for key, shape in KEYS["coco_single"]}
    state = recipe_weights({key: value for key, value in shapes.items() if not key.startswith("criterion.")})
    with torch.device("meta"):  # without the time of random weights
        model = MaskFormer(build_backbone("resnet50", 32, "random"), 171)
    model.to_empty(device="cpu")
    load_maskformer(model, WeightsFile(Path("official.pth"), state))
    fresh = build_backbone("resnet50", 32, "random")
    model.backbone.mean, model.backbone.std = fresh.mean, fresh.std  # not in the file
    return model.eval()


@torch.no_grad()
def test_network_is_the_official_one(official):
    stored = np.load(FIXTURES / "forward.npz")
    seen = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        getattr(official.backbone, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    official.decoder.register_forward_hook(lambda m, i, o: seen.update(decoder=o))
    image = torch.from_numpy(stored["image"])[None]
    output = official(official.normalize(image), every_layer=True)
    assert (output.size, output.padded) == ((70, 100), (96, 128))
    for stage in (2, 3, 4, 5):
        found = seen[f"layer{stage - 1}"]
        assert list(found.shape) == stored[f"res{stage}_shape"].tolist()
        assert float(found.mean()) == pytest.approx(stored[f"res{stage}_mean"], rel=1e-3)
        assert float(found.std()) == pytest.approx(stored[f"res{stage}_std"], rel=1e-3)

    def close(found, key, atol=5e-3):
        np.testing.assert_allclose(found.numpy(), stored[key], rtol=2e-3, atol=atol, err_msg=key)

    close(output.features[0, ::32], "mask_features_sample")
    close(seen["decoder"][:, 0, :4], "decoder_hs")
    close(output.class_logits[-1, 0], "pred_logits")
    close(output.class_logits[:5, 0, :3], "aux_logits_q0_2")
    close(output.mask_logits[-1, 0, :10], "pred_masks_q0_9", 2e-2)
    close(output.mask_logits[-1, 0].mean((1, 2)), "pred_masks_mean_per_query", 2e-2)
    close(output.mask_logits[:5, 0, :10].mean((2, 3)), "aux_masks_mean_q0_9", 2e-2)
    scores = semantic_scores(output, (90, 130))[0]
    close(scores[::19, ::6, ::6], "sem_seg_sample")
    np.testing.assert_allclose(scores.sum((1, 2)).numpy(), stored["sem_seg_sum_per_class"], rtol=2e-3)


def test_positions_are_the_official_ones():
    stored = np.load(FIXTURES / "forward.npz")["pos_embed"]
    np.testing.assert_allclose(sine_position(3, 4, 256)[::16].numpy(), stored, atol=1e-5)


def test_trained_parameters_are_as_many_as_published(official):
    trained = sum(p.numel() for p in official.parameters() if p.requires_grad)
    both = sum(
        np.prod(shape, dtype=int)
        for key, shape in KEYS["coco_crosim"]
        if "sim_net" in key and "running" not in key and "num_" not in key
    )
    assert trained + both == 41_855_342


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "efficientnet_lite0"])
def test_any_backbone_with_stages(backbone):
    model = tiny(backbone).train()
    output = model(torch.randn(2, 3, 64, 96))
    assert output.class_logits.shape == (2, 2, 7, 6)
    assert output.mask_logits.shape == (2, 2, 7, 16, 24) and output.features.shape == (2, 16, 16, 24)
    (output.class_logits.sum() + output.mask_logits.sum()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_an_image_does_not_depend_on_the_others_and_evaluation_keeps_the_last_layer():
    model, images = tiny().eval(), torch.randn(2, 3, 64, 64)
    both, alone, every = model(images), model(images[1:]), model(images, every_layer=True)
    torch.testing.assert_close(both.mask_logits[:, 1:], alone.mask_logits, atol=1e-4, rtol=1e-4)
    assert len(both.class_logits) == 1
    torch.testing.assert_close(every.class_logits[-1:], both.class_logits)
    padded = model(nn.functional.pad(images[..., :50], (0, 14)))
    torch.testing.assert_close(model(images[..., :50]).mask_logits, padded.mask_logits)


def test_batchnorm_of_the_backbone_stays_in_training():
    model = tiny().train()
    before = {key: value.clone() for key, value in model.backbone.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    assert len(before) == 2 + 4 * 20  # mean and std, and four values of each of ResNet-18's norms
    assert all(torch.equal(before[key], value) for key, value in model.backbone.named_buffers())
    assert not any("bn" in name for name, _ in model.named_parameters())


def test_parameter_groups():
    model = tiny()
    groups = {group["name"]: group for group in maskformer_groups(model, RATES)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert groups.keys() == {"decoder", "decoder without decay", "backbone"}
    assert [groups[name]["lr"] for name in groups] == pytest.approx([1e-4, 1e-4, 1e-5])
    assert [groups[name].get("weight_decay") for name in groups] == [None, 0, None]
    plain = {names[p] for p in groups["decoder without decay"]["params"]}
    assert {n for n in names.values() if "norm" in n or "query_embed" in n} == plain
    assert sum(len(group["params"]) for group in groups.values()) == len(names)
    assert {names[p] for p in groups["backbone"]["params"]} == {n for n in names.values() if n.startswith("backbone.")}
    both = nn.ModuleDict({"network": model, "simnet": SimNet(16, 8)})
    grown = {group["name"]: len(group["params"]) for group in maskformer_groups(both, RATES)}
    assert grown.pop("backbone") == len(groups["backbone"]["params"])
    norms, layers = 3 * 2 * 2, 2 * (3 * 2 + 1 + 1)  # of SimNet: weight and bias of each
    assert grown["decoder without decay"] == len(plain) + norms
    assert grown["decoder"] == len(groups["decoder"]["params"]) + layers
    assert len(model.decoder_parameters()) + len(model.backbone_parameters()) == len(names)


def test_build_from_a_section():
    section = SimpleNamespace(**SECTION | {"output_stride": 16})
    output = build_maskformer(section, 3).eval()(torch.zeros(1, 3, 64, 64))
    assert output.class_logits.shape == (1, 1, 9, 4) and output.mask_logits.shape == (1, 1, 9, 16, 16)


def test_a_frozen_backbone_has_no_gradient_and_no_rate():
    section = SimpleNamespace(**SECTION | {"freeze": True})
    model = build_maskformer(section, 3)
    model.train()(torch.rand(1, 3, 64, 64)).mask_logits.sum().backward()
    assert not model.backbone_parameters() and model.pixel_decoder.mask_features.weight.grad is not None
    assert {group["name"] for group in maskformer_groups(model, RATES)} == {"decoder", "decoder without decay"}


def test_classes_by_the_cosine_with_their_words():
    """A proposal that the projection turns into (3, 4): cosines 0.6, 0.8 and, with "nothing" (0, -1), -0.8."""
    layer = WordClasses(2, torch.tensor([[2.0, 0], [0, 5]]))
    with torch.no_grad():
        layer.project.weight.copy_(torch.eye(2))
        layer.project.bias.zero_()
        layer.nothing.copy_(torch.tensor([0.0, -1]))
        layer.scale.fill_(10)
    assert layer(torch.tensor([[3.0, 4]])).tolist() == [pytest.approx([6, 8, -8])]
    model = tiny(classes=2, vectors=torch.eye(3)[:2])
    output = model.eval()(torch.rand(1, 3, 64, 64))
    assert model.num_classes == 2 and output.class_logits.shape == (1, 1, 7, 3)
    assert not any(vectors is layer.vectors for vectors in layer.parameters())
