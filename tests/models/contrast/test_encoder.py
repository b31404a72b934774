"""The MaskContrast encoder against the official code: outputs, key names, files; bank and moving average by hand."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.contrast.encoder import ContrastModel, build_encoder, early_layers, load_encoder
from models.segmentation_files import NCDSS, inverse, renamed
from models.trunks import build_backbone
from models.trunks.imagenet import load_imagenet
from tests.recipe_weights import recipe_weights
from utils.config.contrast import Encoder
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contrast"
TINY = Encoder(backbone="resnet18", init="random", head_channels=8, atrous_rates=(1, 2), dim=4)


def official_keys(name: str) -> dict[str, list[int]]:
    return json.loads(gzip.decompress((FIXTURES / f"state_dict_keys_pretrain_{name}.json.gz").read_bytes()))


def tiny(queue_size: int = 6, **options) -> ContrastModel:
    torch.manual_seed(0)
    return ContrastModel(build_encoder(TINY, TINY.dim), queue_size, **options)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_outputs_are_those_of_the_official_code(name):
    model = build_encoder(Encoder(backbone=name, init="random"), 32).eval()
    official = recipe_weights(renamed(model.state_dict(), inverse(NCDSS)))
    model.load_state_dict(renamed(official, NCDSS))
    image = torch.tensor(np.random.RandomState(7).randn(2, 3, 64, 96), dtype=torch.float32)
    features, (saliency, embedding) = model.backbone(image), model(image)
    summary, arrays = (
        json.loads((FIXTURES / "g1_model.json").read_text())[name],
        np.load(FIXTURES / f"g1_model_{name}.npz"),
    )
    parts = {
        "emb": (embedding, embedding[:, :, ::8, ::8], "emb"),
        "sal": (saliency[:, 0], saliency[:, 0, ::4, ::4], "sal"),
        "feat": (features, features[:, :64, ::2, ::2], "feat_first64"),
    }
    for key, (whole, part, array) in parts.items():
        largest = summary[key]["absmax"]
        assert list(whole.shape) == summary[key]["shape"]
        assert np.abs(part.numpy() - arrays[array]).max() <= 1e-4 * largest
        assert whole.double().mean().item() == pytest.approx(summary[key]["mean"], abs=1e-4 * largest)
        assert whole.double().std(correction=0).item() == pytest.approx(summary[key]["std"], rel=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_keys_are_those_of_the_official_checkpoint(name):
    official = {key.removeprefix("module."): tuple(shape) for key, shape in official_keys(name).items()}
    model = ContrastModel(build_encoder(Encoder(backbone=name, init="random"), 32), 128)
    ours = {}
    for key, value in model.state_dict().items():
        encoder, dot, rest = key.partition(".")
        ours |= {f"{encoder}{dot}{name}": tuple(value.shape) for name in renamed({rest: value}, inverse(NCDSS))}
    assert ours == official
    assert list(official)[:2] == list(model.state_dict())[:2] == ["queue", "queue_ptr"]
    assert len(official) == {"resnet18": 332, "resnet50": 728}[name]


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet_v2", "resnet34"])
@torch.no_grad()
def test_any_backbone_and_a_single_image(backbone):
    section = TINY.model_copy(update={"backbone": backbone, "output_stride": 16})
    model = build_encoder(section, 5).eval()
    saliency, embedding = model(model.normalize(torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)))
    assert embedding.shape == (1, 5, 32, 64) and saliency.shape == (1, 1, 32, 64)


# ---- files


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_encoder_reads_our_files_and_official_ones(tmp_path, prefix):
    model = tiny()
    model.load_state_dict(recipe_weights(model.state_dict()))
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"optimizer": {"state": {}, "param_groups": []}, "model": state, "epoch": 40}, tmp_path / "c.pth.tar")
    loaded = load_encoder(TINY, tmp_path / "c.pth.tar").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.model_q.state_dict().items())
    backbone = build_backbone("resnet18", 8, str(tmp_path / "c.pth.tar"))  # as model.init=FILE
    assert torch.equal(backbone.conv1.weight, model.model_q.backbone.conv1.weight)


def test_files_that_do_not_fit_are_one_line(tmp_path):
    torch.save({"model": tiny().state_dict()}, tmp_path / "c.pth")
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for cfg, file, words in (
        (TINY.model_copy(update={"dim": 5}), "c.pth", "does not fit the network .*head.weight.*check section model"),
        (TINY.model_copy(update={"backbone": "resnet34"}), "c.pth", "does not fit the network .*is missing there"),
        (TINY, "other.pth", "no MaskContrast encoder .its keys begin with backbone"),
        (TINY, "none.pth", "no such checkpoint"),
    ):
        with pytest.raises(UserError, match=words) as error:
            load_encoder(cfg, tmp_path / file)
        assert "\n" not in str(error.value)


def test_backbone_starts_from_a_moco_file(tmp_path):
    source = build_backbone("resnet18", 8, "random").state_dict()
    state = {f"module.encoder_q.{key}": value + 1 for key, value in source.items()}
    state |= {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(128, 4)}
    torch.save({"arch": "resnet18", "epoch": 800, "state_dict": state}, tmp_path / "moco.pth.tar")
    backbone = build_backbone("resnet18", 8, "random")
    load_imagenet(backbone, "resnet18", str(tmp_path / "moco.pth.tar"))
    assert torch.equal(backbone.layer4[1].bn2.running_var, source["layer4.1.bn2.running_var"] + 1)


# ---- moving average, bank, frozen layers


def test_both_encoders_start_alike_and_the_key_follows_in_its_parameters_only():
    model = tiny(momentum=0.75)
    before = {key: value.clone() for key, value in model.model_k.state_dict().items()}
    assert all(torch.equal(before[key], value) for key, value in model.model_q.state_dict().items())
    with torch.no_grad():
        for tensor in (*model.model_q.parameters(), *model.model_q.buffers()):
            tensor += 4
    model.update_key()
    parameters = {key for key, _ in model.model_k.named_parameters()}
    for key, value in model.model_k.state_dict().items():
        torch.testing.assert_close(value, before[key] + (1 if key in parameters else 0))


def test_bank_starts_with_unit_columns():
    torch.testing.assert_close(tiny().queue.norm(dim=0), torch.ones(6))


@pytest.fixture(scope="module")
def model():
    return tiny()


@given(counts=st.lists(st.integers(1, 9), max_size=6), size=st.integers(1, 7))
def test_bank_holds_the_last_prototypes_in_a_ring(model, counts, size):
    seen, model.queue, model.queue_ptr = 0, torch.randn(4, size), torch.zeros(1, dtype=torch.long)
    expected = model.queue.clone()
    for count in counts:
        batch = torch.arange(seen, seen + count).float()[:, None].expand(count, 4)
        model.enqueue(batch)
        for number in range(seen, seen + count):
            expected[:, number % size] = number
        seen += count
    assert torch.equal(model.queue, expected) and model.queue_ptr.tolist() == [seen % size]


def test_frozen_layers_neither_train_nor_change_their_statistics():
    model = tiny(freeze_layers=True)
    for name, module in model.named_modules():
        early = any(f"backbone.{part}" in name for part in ("conv1", "bn1", "layer1", "layer2"))
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.training != early, name
        for parameter in module.parameters(recurse=False):
            assert parameter.requires_grad == (name.startswith("model_q") and not early), name
    assert not any(module.training for module in model.eval().modules())
    assert any(parameter.requires_grad for parameter in tiny().model_q.backbone.conv1.parameters())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v2"])
def test_other_backbones_have_early_layers_too(name):
    backbone = build_backbone(name, 16, "random")
    early = {parameter for layer in early_layers(backbone) for parameter in layer.parameters()}
    later = {parameter for part in backbone.trained for parameter in backbone.get_submodule(part).parameters()}
    assert early and later and not early & later and early | later == set(backbone.parameters())
