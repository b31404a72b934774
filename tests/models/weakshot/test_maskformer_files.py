"""Official files of both generations, ours, and what does not fit."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from models.trunks import build_backbone
from models.weakshot.maskformer import MaskFormer, build_maskformer
from models.weakshot.maskformer_files import backbone_file, load_maskformer, read_maskformer, rename_official
from models.weakshot.simnet import SimNet
from models.weights import WeightsFile, misfit
from tests.models.weakshot.test_maskformer import SECTION, tiny
from utils.errors import UserError

KEYS = json.loads(gzip.decompress((Path(__file__).parents[2] / "fixtures/weakshot/keys.json.gz").read_bytes()))
CLASSES = {"coco": 171, "ade": 150}


def shapes(kind: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(()).expand(shape) for key, shape in KEYS[kind]}  # one number each in memory and on disk


def as_zoo(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("pixel_decoder.", ""): value for key, value in state.items()}


@pytest.fixture(scope="module", params=["coco", "ade"])
def published(request) -> tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(data set, state dict of the network, of SimNet), shapes alone."""
    with torch.device("meta"):
        model = MaskFormer(build_backbone("resnet50", 32, "random"), CLASSES[request.param])
        return request.param, model.state_dict(), SimNet().state_dict()


@pytest.mark.parametrize(("zoo", "prefix"), [(False, "module."), (True, "")])
def test_every_official_name_has_a_place(published, zoo, prefix, tmp_path):
    dataset, network, simnet = published
    for kind in ("single", "crosim"):
        state = shapes(f"{dataset}_{kind}")
        state = as_zoo(state) if zoo else state
        path = tmp_path / f"{kind}.pth"
        torch.save({"model": {prefix + key: value for key, value in state.items()}, "iteration": 3}, path)
        found = read_maskformer(path)
        assert misfit(network, found.state) is None
        assert misfit(simnet, found.simnet) is None if kind == "crosim" else not found.simnet
        assert (found.num_classes, found.queries, found.extra) == (CLASSES[dataset], 100, {"iteration": 3})
        assert found.flavour == ("MaskFormer model zoo" if zoo else "official SimFormer")


def official(model: MaskFormer) -> dict[str, torch.Tensor]:
    """Weights of a small network on a ResNet with basic blocks under detectron2's names."""
    renamed = {}
    for key, value in model.state_dict().items():
        if key.startswith("backbone."):
            key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            for number in "123":
                key = key.replace(f"bn{number}.", f"conv{number}.norm.")
            key = key.replace("backbone.conv1", "backbone.stem.conv1")
            for stage in "1234":
                key = key.replace(f"layer{stage}", f"res{int(stage) + 1}")
            renamed[key] = value
        elif key.startswith("pixel_decoder."):
            renamed[f"sem_seg_head.{key}"] = value
        else:
            renamed[f"sem_seg_head.predictor.{'transformer.' if key.startswith('decoder.') else ''}{key}"] = value
    return renamed | {"criterion.empty_weight": torch.ones(6), "criterion.ingore_th": torch.tensor(-2.9444)}


@pytest.mark.parametrize("generation", ["trainer", "zoo pickle"])
def test_values_arrive_where_they_belong(tmp_path, generation):
    model, other = tiny(), tiny()
    with torch.no_grad():
        for number, value in enumerate(model.state_dict().values()):
            value += 0.01 * (number + 1)
    state = official(model)
    if generation == "trainer":
        path = tmp_path / "model_final.pth"
        torch.save({"model": state, "optimizer": {}, "iteration": 9}, path)
    else:
        path = tmp_path / "model_final.pkl"
        arrays = {key: value.numpy() for key, value in as_zoo(state).items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo", "matching_heuristics": True}))
    weights = load_maskformer(other, path)
    assert not weights.simnet and weights.num_classes == 5
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_our_own_files(tmp_path):
    model, simnet = tiny(), SimNet(16, 8)
    states = model.state_dict(), simnet.state_dict()
    plain, both = tmp_path / "plain.pth", tmp_path / "both.pth"
    torch.save({"model": states[0]}, plain)
    joined = {f"{part}.{k}": v for part, s in zip(("network", "simnet"), states, strict=True) for k, v in s.items()}
    torch.save({"model": joined}, both)
    for path in (plain, both):
        found = read_maskformer(path)
        assert found.flavour == "MaskFormer" and found.state.keys() == states[0].keys()
        assert found.simnet.keys() == (states[1].keys() if path == both else set())


def test_another_number_of_classes_or_queries(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": official(tiny())}, path)
    with pytest.raises(UserError, match=r"w\.pth: has 5 classes, this run needs 4; check data\.dataset and split"):
        load_maskformer(tiny(classes=4), path)
    with pytest.raises(UserError, match=r"w\.pth: has 7 queries, this network 9; set model\.queries=7"):
        load_maskformer(tiny(queries=9), path)
    model = tiny(classes=4)
    with torch.no_grad():
        model.query_embed.weight.zero_()
        before = model.class_embed.weight.clone()
    load_maskformer(model, path, other_classes=True)
    assert torch.equal(model.class_embed.weight, before) and model.query_embed.weight.any()


def test_networks_that_words_tell_the_classes_of(tmp_path):
    """The file's vectors come with it; for other classes the run's stay, and all else is taken."""
    path, made = tmp_path / "w.pth", tiny(classes=2, vectors=torch.eye(3)[:2])
    torch.save({"model": made.state_dict()}, path)
    assert read_maskformer(path).num_classes == 2 and read_maskformer(path).vectors.equal(torch.eye(3)[:2])
    with pytest.raises(UserError, match="has 2 classes, this run needs 3"):
        load_maskformer(tiny(classes=3, vectors=torch.eye(3)), path)
    other = tiny(classes=3, vectors=torch.eye(3))
    with torch.no_grad():
        other.class_embed.project.weight.zero_()
    load_maskformer(other, path, other_classes=True)
    assert other.class_embed.vectors.equal(torch.eye(3))
    assert other.class_embed.project.weight.equal(made.class_embed.project.weight)


def test_what_is_no_maskformer_is_named(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": {"backbone.conv1.weight": torch.ones(1), "classifier.4.weight": torch.ones(1)}}, path)
    with pytest.raises(UserError, match=r"w\.pth: no MaskFormer \(its keys begin with backbone, classifier\)"):
        read_maskformer(path)
    state = official(tiny())
    state.pop("sem_seg_head.predictor.mask_embed.layers.1.bias")
    torch.save({"model": state}, path)
    with pytest.raises(UserError, match=r"w\.pth: does not fit .*mask_embed\.layers\.1\.bias is missing there"):
        load_maskformer(tiny(), path)


def test_imagenet_weights_of_detectron2(tmp_path):
    source = tiny()
    with torch.no_grad():
        source.backbone.layer4[1].bn2.running_mean += 3
    names = official(source)
    arrays = {k.removeprefix("backbone."): v.numpy() for k, v in names.items() if k.startswith("backbone.")}
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps({"model": arrays | {"stem.fc.weight": np.ones((2, 2), np.float32)}}))
    section = type("Section", (), SECTION | {"init": str(path)})
    model = build_maskformer(section, 3)
    assert all(
        torch.equal(value, model.backbone.state_dict()[key]) for key, value in source.backbone.state_dict().items()
    )
    file = WeightsFile(path, {"conv1.weight": torch.ones(1)})
    assert backbone_file(file) is file
    with pytest.raises(UserError, match=r"R-18\.pkl: does not fit the network .*expected weights of resnet34"):
        build_maskformer(type("Section", (), SECTION | {"init": str(path), "backbone": "resnet34"}), 3)


def test_an_unknown_official_name_is_not_dropped():
    state = {"backbone.stem.conv1.weight": torch.ones(1), "backbone.res2.0.conv9.what": torch.ones(1)}
    assert "backbone.layer1.0.conv9.what" in rename_official(state)[1]
