"""Networks of the probes: official key names, the frozen part, what a file is taken for."""

import gzip
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.contrast.encoder import build_encoder
from models.contrast.probes import FeatureNetwork, build_features, build_probe, foreground_weight, is_probe, load_probe
from models.segmentation_files import NCDSS, inverse, renamed, to_official
from tests.recipe_weights import draw, recipe_weights
from utils.config.probe import ProbeConfig
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contrast"
TINY = {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": [1, 2], "dim": 4}


def official(name: str) -> dict[str, torch.Tensor]:
    """Recipe weights under the keys of a golden list."""
    shapes = json.loads(gzip.decompress((FIXTURES / f"state_dict_keys_{name}.json.gz").read_bytes()))
    norms = {key.removesuffix("running_mean") for key in shapes if key.endswith("running_mean")}
    return {key: draw(key, tuple(shape), norms) for key, shape in shapes.items()}


def settings(checkpoint=None, **model) -> ProbeConfig:
    return ProbeConfig.model_validate({"checkpoint": checkpoint and str(checkpoint), "model": {**TINY, **model}})


@pytest.fixture
def pretrained(tmp_path):
    """An official file of pre-training, small, under the names that DistributedDataParallel gives."""
    encoder = build_encoder(settings().model, TINY["dim"])
    state = recipe_weights(renamed(encoder.state_dict(), inverse(NCDSS)))
    both = {f"module.model_{letter}.{key}": value for letter in "qk" for key, value in state.items()}
    path = tmp_path / "pretrained.pth.tar"
    torch.save({"optimizer": {}, "model": both, "epoch": 40}, path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_official_linear_probe_has_our_keys(name, tmp_path):
    theirs = official(f"linear_{name}")
    path = tmp_path / "best_model.pth.tar"
    torch.save(theirs, path)
    cfg = ProbeConfig.model_validate({"model": {"backbone": name}})
    assert is_probe(cfg, path)
    probe = load_probe(cfg, path, 21)
    back = to_official({"student": probe.state_dict()})
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in theirs)


@torch.no_grad()
def test_probe_starts_on_the_pretrained_network(pretrained):
    torch.manual_seed(0)
    cfg = settings(pretrained)
    probe = build_probe(cfg, 2000)
    assert probe.classifier.weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert probe.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05) and not probe.classifier.bias.any()
    assert [name for name, p in probe.named_parameters() if p.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    probe.train()
    assert not any(module.training for module in probe.modules())  # so no dropout either
    encoder = build_features(cfg).network
    image = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    output = probe(image)
    features = encoder.features(image)
    torch.testing.assert_close(output.embedding, features)
    expected = F.interpolate(probe.classifier(features), size=(40, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.logits, expected)


@torch.no_grad()
def test_features_are_those_of_the_encoder_before_up_sampling(pretrained):
    network = build_features(settings(pretrained))
    image = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    described, (saliency, embedding) = network(image), network.network(image)
    large = F.interpolate(described.features, size=(40, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, embedding)
    torch.testing.assert_close(described.weight, torch.where(saliency > 0.5, saliency, 0)[:, 0])
    assert described.weight.gt(0).any() and described.weight.eq(0).any()


def test_foreground_by_hand():
    """Up-sampled first, then compared with 0.5: exactly 0.5 is background."""
    logits = torch.tensor([[[[0.0, 2.0]]]])
    assert foreground_weight(logits, (1, 4)).tolist() == [[[0, 0, 1.5, 2]]]


def test_what_a_file_is_taken_for(pretrained, tmp_path):
    """A probe is scored, everything else is probed; whole segmentation networks count as their backbone."""
    paths = {}
    for kind in ("maskcontrast", "backbone"):
        paths[kind] = tmp_path / f"{kind}.pth"
        torch.save(build_probe(settings(pretrained, kind=kind), 5).state_dict(), paths[kind])
    found = {(kind, name): is_probe(settings(kind=kind), path) for kind in paths for name, path in paths.items()}
    assert found == {(a, b): a == b for a in paths for b in paths}
    assert not is_probe(settings(), pretrained) and not is_probe(settings(kind="backbone"), pretrained)
    ours = load_probe(settings(kind="backbone"), paths["backbone"], 5)
    assert {key.split(".")[0] for key in ours.state_dict()} == {"backbone", "classifier"}
    with pytest.raises(UserError, match="has 5 outputs, this run needs 21"):
        load_probe(settings(), paths["maskcontrast"], 21)


def test_backbone_of_any_file(pretrained, tmp_path):
    """The encoder's own backbone, found inside a pre-training file; no saliency head."""
    plain = build_features(settings(pretrained, kind="backbone"))
    encoder = build_features(settings(pretrained)).network
    assert isinstance(plain, FeatureNetwork) and not plain.has_head and not plain.training
    state = encoder.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.network.state_dict().items())
    assert plain(torch.randn(1, 3, 32, 32)).weight is None
