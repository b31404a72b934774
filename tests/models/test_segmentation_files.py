import gzip
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from models.discovery.teacher_student import TeacherStudent
from models.segmentation import SegmentationNet
from models.segmentation_files import load_network, read_network, to_official, to_torchvision
from models.trunks import build_backbone
from models.trunks.imagenet import lite0_file
from tests.networks import discovery_network
from utils import checkpoint
from utils.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "discovery"
NUM_OUTPUTS = {
    "base_pascal": 16,
    "finetune_basic_pascal_k10": 26,
    "eums_pascal_k10": 26,
    "base_coco": 61,
    "finetune_basic_coco_k40": 101,
    "eums_coco_k40": 101,
}


def official_shapes(kind: str) -> dict[str, list[int]]:
    """Entries of an official checkpoint; those of COCO are PASCAL's but for what the list of COCO replaces."""
    lists = json.loads(gzip.decompress((FIXTURES / "c1_state_dict_keys.json.gz").read_bytes()))
    pascal = {"base_coco": "base_pascal", "finetune_basic_coco_k40": "finetune_basic_pascal_k10"}
    return lists[pascal.get(kind, "eums_pascal_k10")] | lists[kind] if "coco" in kind else lists[kind]


def by_rule(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights of rules R and S, see tests/fixtures/discovery/README.md."""
    state = {}
    norms = {key.removesuffix("running_mean") for key in shapes if key.endswith("running_mean")}
    for key, shape in shapes.items():
        drawn = np.random.RandomState(zlib.crc32(key.encode())).randn(*shape)
        module, name = key.rpartition(".")[0] + ".", key.rpartition(".")[2]
        if key == "queue":
            value = drawn * 0.02
        elif len(shape) >= 2:
            value = drawn * np.sqrt(2 / np.prod(shape[1:]))
        elif module in norms:
            one = name in ("weight", "running_var")
            value = one + 0.1 * (abs(drawn) if name == "running_var" else drawn)
            value = np.int64(0) if name == "num_batches_tracked" else value
        else:
            value = drawn * 0.01
        if key.endswith(("decoder.4.weight", "head.weight")):
            value = value * 0.02  # rule S
        state[key] = torch.tensor(value, dtype=torch.int64 if name == "num_batches_tracked" else torch.float32)
    return state


def empty(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes that take one number of storage each."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def tiny(num_classes: int = 5, seed: int = 0, name: str = "resnet18") -> SegmentationNet:
    torch.manual_seed(seed)
    return discovery_network(num_classes, backbone=name)


def published(num_classes: int) -> SegmentationNet:
    return discovery_network(num_classes, backbone="resnet50", atrous_rates=(12, 24, 36), head_channels=256)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def shapes_of(network) -> dict:
    return {key: value.shape for key, value in network.state_dict().items()}


@pytest.fixture
def weights(tmp_path):
    """Write something to a file and return its path."""

    def write(content, name: str = "w.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


# ---- the official files


@pytest.mark.parametrize("kind", NUM_OUTPUTS)
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_every_official_checkpoint_has_the_keys_of_the_network(kind, which, weights):
    found = read_network(weights(empty(official_shapes(kind))), which)
    with torch.device("meta"):
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=None, num_classes=NUM_OUTPUTS[kind])
    assert {k: v.shape for k, v in to_torchvision(found.state).items()} == shapes_of(theirs)
    assert found.num_classes == NUM_OUTPUTS[kind]
    assert found.flavour == ("official teacher-student" if "eums" in kind else "official")


@pytest.mark.parametrize("kind, network", [("base_pascal", "base16"), ("eums_pascal_k10", "model_q")])
@torch.no_grad()
def test_logits_are_those_of_the_official_code(kind, network, weights):
    expected = dict(np.load(FIXTURES / "c2_logits.npz"))
    image = torch.tensor(np.random.RandomState(0).randn(1, 3, 65, 97), dtype=torch.float32)
    path = weights(by_rule(official_shapes(kind)))
    model = published(NUM_OUTPUTS[kind])
    load_network(model.eval(), path)
    logits, embedding = model(image)
    np.testing.assert_allclose(logits[0, :, ::4, ::4], expected[f"{network}_logits_s4"], atol=2e-4)
    assert (logits[0].argmax(0).numpy() == expected[f"{network}_argmax"]).all()
    if network == "base16":
        features = model.backbone(image)[0].mean(0)
        np.testing.assert_allclose(features, expected["base16_feat_mean_per_pos"], rtol=1e-3)
    else:
        assert embedding.shape == tuple(expected["model_q_emb_shape"])
        np.testing.assert_allclose(embedding[0, :16], expected["model_q_embedding"], rtol=1e-3, atol=1e-3)
        load_network(model, path, which="teacher")
        np.testing.assert_allclose(model(image).logits[0, :, ::4, ::4], expected["model_k_logits_s4"], atol=2e-4)
    path.unlink()  # some 300 MB


def test_resumable_official_checkpoint(weights, tmp_path):
    """Its best IoU is a numpy scalar, which safe loading refuses; numpy 1, which wrote it, had another module name."""
    state = to_official({"student": tiny().state_dict()})
    best = np.float64(0.25)
    new = weights(
        {"optimizer": {"state": {}}, "model": state, "epoch": 30, "best_epoch": 28, "best_iou": best}, "new.tar"
    )
    old = tmp_path / "old.tar"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.namelist():
            content = source.read(item)
            if item.endswith("data.pkl"):
                assert b"numpy._core" in content or b"numpy.core" in content
                content = content.replace(b"numpy._core", b"numpy.core")
            target.writestr(item, content)
    for path in (new, old):
        found = read_network(path)
        assert found.flavour == "official" and equal(found.state, tiny().state_dict())
        assert found.extra["best_iou"] == 0.25 and found.extra["epoch"] == 30


def test_to_official_gives_the_official_keys():
    with torch.device("meta"):
        model = published(16)
    renamed = to_official({"student": model.state_dict()})
    assert {key: list(value.shape) for key, value in renamed.items()} == official_shapes("base_pascal")


def test_to_official_gives_the_official_keys_of_eums():
    with torch.device("meta"):
        state = published(26).state_dict()
    renamed = to_official({"student": state, "teacher": state})
    assert {key: list(value.shape) for key, value in renamed.items()} == official_shapes("eums_pascal_k10")


# ---- every way a file may be packed


PACKINGS = {
    "bare": lambda state: state,
    "wrapped": lambda state: {"model": state, "epoch": 3},
    "data parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "official": lambda state: to_official({"student": state}),
    "official, wrapped, data parallel": lambda state: {
        "model": {f"module.{key}": value for key, value in to_official({"student": state}).items()}
    },
    "torchvision": to_torchvision,
    "torchvision with auxiliary head": lambda state: (
        to_torchvision(state) | {"aux_classifier.0.weight": torch.ones(2, 2, 3, 3)}
    ),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packings(packing, weights):
    state = tiny(seed=1).state_dict()
    model = tiny(seed=2)
    found = load_network(model, weights(PACKINGS[packing](state)))
    assert equal(model.state_dict(), state) and found.num_classes == 5


def test_our_own_checkpoints(tmp_path):
    model = tiny(seed=1)
    checkpoint.save(tmp_path / "best.pth", {"model": model.state_dict(), "epoch": 2})
    found = read_network(tmp_path / "best.pth")
    assert equal(found.state, model.state_dict()) and found.flavour == "ours"
    assert found.extra == {"format": 1, "epoch": 2}


def test_our_own_teacher_student_checkpoints(tmp_path):
    both = TeacherStudent(tiny(seed=1))
    checkpoint.save(tmp_path / "last.pth", {"model": both.state_dict()})
    student, teacher = (read_network(tmp_path / "last.pth", which) for which in ("student", "teacher"))
    assert equal(student.state, both.student.state_dict()) and equal(teacher.state, both.teacher.state_dict())
    assert not equal(student.state, teacher.state) and student.flavour == "teacher-student"


def test_official_student_alone(weights):
    """The official evaluation also accepts a file with the student only."""
    state = tiny(seed=1).state_dict()
    renamed = {k.replace("decoder.4.", "head."): v for k, v in to_official({"student": state}).items()}
    path = weights({f"model_q.{key}": value for key, value in renamed.items()} | {"queue": torch.zeros(8, 4)})
    assert equal(read_network(path).state, state)
    with pytest.raises(UserError, match="w.pth: no known segmentation weights"):
        read_network(path, "teacher")


def test_backbone_only(weights):
    other, model = tiny(7, seed=1), tiny(5, seed=2)  # the numbers of outputs need not agree
    rest = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    load_network(model, weights(other.state_dict()), only="backbone")
    assert equal(model.backbone.state_dict(), other.backbone.state_dict())
    assert equal({k: v for k, v in model.state_dict().items() if not k.startswith("backbone.")}, rest)


def test_torchvision_coco_weights_as_initialisation(weights):
    """21 outputs and an auxiliary head there, 5 outputs here: everything but the last layer."""
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True, num_classes=21).state_dict()
    model = published(5)
    last = {k: v.clone() for k, v in model.classifier.state_dict().items()}
    path = weights(theirs)
    load_network(model, path, other_classes=True)
    own = to_torchvision(model.state_dict())
    assert all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith("classifier.4."))
    assert equal(model.classifier.state_dict(), last)
    refuse(path, "has 21 outputs, this run needs 5", model)


# ---- files that do not fit


def refuse(path: Path, message: str, model: SegmentationNet | None = None) -> None:
    model = model or tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_network(model, path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert equal(model.state_dict(), before)


def test_number_of_outputs(weights):
    refuse(
        weights(to_official({"student": tiny(16).state_dict()})),
        "w.pth: has 16 outputs, this run needs 5; check split and cluster.k",
    )


def test_other_networks(weights):
    refuse(
        weights(tiny(5, name="resnet34").state_dict()), r"w.pth: does not fit the network \(\d+ of \d+ tensors fit: "
    )
    other = tiny(5, name="efficientnet_lite0").state_dict()
    refuse(weights(other), "backbone.conv1.weight is missing there.; check section model")
    wide = discovery_network(5, head_channels=16)
    refuse(weights(wide.state_dict()), r"decoder.aspp.convs.0.0.weight has shape \(16, 512, 1, 1\) there, \(8, ")


def test_one_missing_tensor(weights):
    state = tiny().state_dict()
    del state["backbone.layer3.1.conv2.weight"]
    refuse(weights(state), "backbone.layer3.1.conv2.weight is missing there")


def test_files_without_segmentation_weights(weights, tmp_path):
    refuse(weights(build_backbone("resnet18", 8, "random").state_dict()), "no known segmentation weights .*bn1, conv1")
    refuse(lite0_file(), "no known segmentation weights .*_blocks")
    refuse(weights({}), "no weights in it; its keys are none")
    refuse(weights({0: torch.zeros(1), "lr": 0.1}), "no weights in it; its keys are 0, lr")
    refuse(weights({"model": None}), "no weights in it; its keys are model")
    refuse(weights([torch.zeros(1)]), "holds a list, not a dictionary")
    refuse(tmp_path / "nowhere.pth", "no such checkpoint")
    for content in (b"", b"<html>not found</html>", b"PK\x03\x04"):
        (tmp_path / "damaged.pth").write_bytes(content)
        refuse(tmp_path / "damaged.pth", "damaged.pth: not a readable checkpoint")


def test_an_encoder_of_maskcontrast_is_no_student_and_teacher(weights):
    official = to_official({"student": tiny().state_dict()})
    state = {key.replace("decoder.4.", "head."): value for key, value in official.items()}
    state["classification_head.weight"] = torch.zeros(1, 8, 1, 1)
    both = {f"{name}.{key}": value for key, value in state.items() for name in ("model_q", "model_k")}
    refuse(weights({"model": both}), "no known segmentation weights .*model_k, model_q")


def test_code_in_a_file_is_not_run(weights):
    refuse(weights({"model": tiny().state_dict(), "hook": print}), "not a readable checkpoint")
