"""Checkpoints converted for other programs, evaluation of official ones, and every system to every format."""

import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

import eval as evaluation
import export
from data.io import read_image, read_label
from data.labelled_set import FORMATS
from data.transforms import ValTransform
from models.contrast.encoder import ContrastModel, build_encoder
from models.contrast.probes import build_probe
from models.discovery.teacher_student import TeacherStudent
from models.incremental.network import build_incremental
from models.onnx.export import PACKAGES
from models.segmentation import SegmentationNet, build_network
from models.segmentation_files import read_network, read_networks
from models.weakshot.simformer import build_weak_shot
from tests import probes
from tests import test_pretrain_contrast as contrast
from tests import test_train_weakshot as weakshot
from tests.conftest import CLASSES, TASK, TINY, balance, make_task_shapes, make_voc
from tests.networks import discovery_network
from tests.probes import write_encoder
from utils import checkpoint
from utils.config.discovery import Model
from utils.config.reader import validate
from utils.errors import UserError
from utils.run import guarded
from utils.systems import SYSTEMS, schema_of


def network(num_classes: int, name: str = "resnet18") -> SegmentationNet:
    return discovery_network(num_classes, backbone=name, atrous_rates=(1, 2, 3))


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def export_to(kind: str, source, target):
    assert guarded(export.main, [str(source), str(target), "--to", kind]) == 0
    return target


@pytest.mark.parametrize("eums", [False, True])
def test_to_official_and_back(tmp_path, eums):
    ours = TeacherStudent(network(6)) if eums else network(6)
    checkpoint.save(tmp_path / "best.pth", {"model": ours.state_dict(), "epoch": 3})
    official = export_to("official", tmp_path / "best.pth", tmp_path / "eums_f0.pth.tar")
    keys = torch.load(official, weights_only=True).keys()
    prefixes = {"model_q", "model_k", "queue"} if eums else {"backbone", "decoder"}
    assert {key.split(".")[0] for key in keys} == prefixes
    back = checkpoint.load(export_to("ours", official, tmp_path / "back.pth"))["model"]
    assert equal(back, ours.state_dict())


def test_torchvision_loads_the_student(tmp_path):
    both = TeacherStudent(build_network(Model(init="random"), 6))
    checkpoint.save(tmp_path / "best.pth", {"model": both.state_dict()})
    state = torch.load(export_to("torchvision", tmp_path / "best.pth", tmp_path / "tv.pth"), weights_only=True)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=None, num_classes=6).eval()
    theirs.load_state_dict(state)
    image = torch.randn(1, 3, 33, 41, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = both.student.eval()(image).logits
        torch.testing.assert_close(theirs(image)["out"], expected, rtol=1e-4, atol=1e-4)


def test_the_source_is_never_overwritten(tmp_path, capsys):
    checkpoint.save(tmp_path / "best.pth", {"model": network(6).state_dict()})
    before = (tmp_path / "best.pth").read_bytes()
    assert guarded(export.main, [str(tmp_path / "best.pth"), str(tmp_path / "best.pth"), "--to", "ours"]) == 2
    assert "is the source" in capsys.readouterr().err and (tmp_path / "best.pth").read_bytes() == before
    assert guarded(export.main, [str(tmp_path / "none.pth"), str(tmp_path / "x.pth"), "--to", "ours"]) == 2
    assert not (tmp_path / "x.pth").exists()


def test_what_cannot_be_exported_is_one_line(tmp_path, voc, capsys):
    """A folder as the target, an encoder, weights that are not finite: nothing is written."""
    good, nan = network(6).state_dict(), network(6).state_dict()
    nan["classifier.bias"][2] = torch.nan
    torch.save(good, tmp_path / "good.pth")
    torch.save(nan, tmp_path / "nan.pth")
    (tmp_path / "folder").mkdir()
    encoder = write_encoder(voc, tmp_path / "encoder.pth")
    before = sorted(tmp_path.rglob("*"))
    for source, target, said in (
        (tmp_path / "good.pth", tmp_path / "folder", f"{tmp_path / 'folder'}: Is a directory"),
        (encoder, tmp_path / "a.pth", "no known segmentation weights"),
        (tmp_path / "nan.pth", tmp_path / "a.pth", "classifier.bias holds 1 values that are not finite"),
    ):
        assert guarded(export.main, [str(source), str(target), "--to", "official"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# ---- evaluation of official checkpoints


def two_pass_scores(pred: np.ndarray, truth: np.ndarray, coarse: tuple[np.ndarray, np.ndarray]) -> tuple[list, list]:
    """The official offline protocol, one pair of masks at a time: (match, IoU of every class).

    Classes 0..2 are known, 3 and 4 novel; `coarse` are predictions and labels at network resolution.
    """
    rough, label = coarse
    keep = (label >= 3) & (label != 255) & (rough >= 3)
    match = []
    for cluster in range(3, int(pred.max()) + 1):
        table = []
        for novel in (3, 4):
            a, b = (rough == cluster) & keep, (label == novel) & keep
            table.append((a & b).sum() / max((a | b).sum(), 1e-8))
        match.append([cluster - 3, int(np.argmax(table))])
    renamed = pred.copy()
    for cluster, novel in match:
        renamed[pred == 3 + cluster] = 3 + novel
    valid = truth != 255
    scores = []
    for number in range(5):
        a, b = (renamed == number) & valid, (truth == number) & valid
        scores.append((a & b).sum() / max((a | b).sum(), 1e-8))
    return match, scores


@pytest.mark.parametrize("clusters", [2, 4])
def test_an_official_checkpoint_is_recognised_and_scored_by_their_protocol(tiny, voc, tmp_path, clusters):
    """`checkpoint.pth.tar` of EUMS: teacher and student, and a numpy scalar; K is read off the weights."""
    torch.manual_seed(3)
    both = TeacherStudent(network(3 + clusters))
    balance(both.student, voc)
    checkpoint.save(tmp_path / "ours.pth", {"model": both.state_dict()})
    official = torch.load(export_to("official", tmp_path / "ours.pth", tmp_path / "bare.tar"), weights_only=True)
    wrapped = {"model": official, "optimizer": {}, "epoch": 30, "best_epoch": 28, "best_iou": np.float64(0.5)}
    torch.save(wrapped, tmp_path / "checkpoint.pth.tar")
    options = [f"checkpoint={tmp_path / 'checkpoint.pth.tar'}", "save_predictions=true", "evaluation.match=many_to_one"]
    assert guarded(evaluation.main, [str(tiny), "model.backbone=resnet18", *options]) == 0
    folder = tmp_path / "out" / "two" / "eval_eums"
    metrics = json.loads((folder / "metrics.json").read_text())

    names = (voc / "sets" / "val.txt").read_text().split()
    model, resize = both.student.eval(), ValTransform(32)
    truth = np.stack([read_label(voc / "SegmentationClassAug" / f"{n}.png") for n in names])
    images = [resize.resize("image", read_image(voc / "images" / f"{n}.jpg")) for n in names]
    with torch.no_grad():
        batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))
        rough = model(model.normalize(batch)).logits.argmax(1).numpy().astype(np.uint8)
    fine = np.stack([cv2.resize(r, truth.shape[:0:-1], interpolation=cv2.INTER_NEAREST) for r in rough])
    label = np.stack([resize.resize("label", t) for t in truth])
    assert set(np.unique(rough)) == set(range(3 + clusters))
    match, scores = two_pass_scores(fine, truth, (rough, label))
    assert metrics["match"] == match
    assert list(metrics["per_class"].values()) == pytest.approx([s if s else 0.0 for s in scores])
    table = np.array([0, 1, 2, *(3 + novel for _, novel in match)])
    for name, values in zip(names, fine, strict=True):
        assert np.array_equal(read_label(folder / "predictions" / f"{name}.png"), table[values])


def test_an_onnx_file(tiny, voc, tmp_path, capsys):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    session = pytest.importorskip("onnxruntime").InferenceSession
    checkpoint.save(tmp_path / "bare.pth", {"model": balance(network(6), voc).state_dict()})
    argv = [str(tiny), f"checkpoint={tmp_path / 'bare.pth'}", "model.backbone=resnet18"]
    assert guarded(evaluation.main, argv) == 0
    evaluated = tmp_path / "out" / "two" / "eval_basic" / "model.pth"
    assert guarded(export.main, [str(evaluated), str(tmp_path / "made.onnx"), "--format", "onnx"]) == 0
    assert "images 32x32, 6 outputs; against torch logits differ by up to" in capsys.readouterr().out
    assert session(str(tmp_path / "made.onnx")).get_inputs()[0].shape[1:] == [3, 32, 32]


def test_options_without_effect_are_one_line(tmp_path, capsys):
    source, target = str(tmp_path / "best.pth"), str(tmp_path / "made")
    for options, said in (
        (["--to", "ours", "--images", "x"], "--images: --to ours writes a network and labels nothing; leave it out"),
        (["--format", "onnx", "--device", "cpu"], "--device: --format onnx writes a network and labels nothing"),
        (
            ["--format", "coco", "--size", "4x4"],
            "--size: has an effect with --format onnx only, not with --format coco",
        ),
        (["--format", "onnx"], "best.pth: no such checkpoint"),
    ):
        assert guarded(export.main, [source, target, *options]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert export.parse_size("480x640") == (480, 640) and export.parse_size(None) is None
    for text in ("480", "0x4", "axb", "4x4x4"):
        with pytest.raises(UserError, match=f"--size {text}: no size of an image; give HEIGHTxWIDTH"):
            export.parse_size(text)


def test_a_file_of_another_split_is_refused(tiny, tmp_path, capsys):
    state = {"model": network(6).state_dict(), "classes": [[0, "background"], [3, "bar"], [4, "dot"]]}
    checkpoint.save(tmp_path / "other.pth", state)
    assert guarded(evaluation.main, [str(tiny), f"checkpoint={tmp_path / 'other.pth'}", "model.backbone=resnet18"]) == 2
    assert "trained on other base classes than split=two has" in capsys.readouterr().err


def test_networks_of_a_file(tmp_path):
    both = TeacherStudent(network(6))
    checkpoint.save(tmp_path / "both.pth", {"model": both.state_dict()})
    found = read_networks(tmp_path / "both.pth")
    assert equal(found["teacher"], both.teacher.state_dict()) and equal(found["student"], both.student.state_dict())
    checkpoint.save(tmp_path / "one.pth", {"model": network(6).state_dict()})
    assert read_networks(tmp_path / "one.pth").keys() == {"student"}
    assert read_network(tmp_path / "one.pth").num_classes == 6


# ---- every system to every format


def ncdss_network(cfg):
    return network(6), 6


def ssul_network(cfg):
    return build_incremental(cfg.model, [1, 1, 2, 1, 1], linear=False, init="random"), 5


def probe_network(cfg):
    return build_probe(cfg, 5), 5


def maskcontrast_network(cfg):
    return ContrastModel(build_encoder(cfg.model, cfg.model.dim), 8), 2


def zs3_network(cfg):
    return build_network(cfg.model, 5), 5


def simformer_network(cfg):
    return build_weak_shot(cfg.model, 5, pairs=True), 5


NETWORKS = {  # configuration with all its keys but the data set, and (network, its outputs)
    "ncdss": (TINY, ncdss_network),
    "ssul": (TASK, ssul_network),
    "probe": (probes.SMALL | {"model": probes.SMALL["model"] | {"kind": "untrained"}}, probe_network),
    "maskcontrast": (contrast.SMALL, maskcontrast_network),
    "zs3": (
        {
            **{"system": "zs3", "split": "two", "data": {"image_size": 32, "workers": 0}, "evaluation": {"size": 32}},
            "model": {"backbone": "resnet18", "init": "random", "head_channels": 8, "atrous_rates": [1, 2, 3]},
        },
        zs3_network,
    ),
    "simformer": (weakshot.TINY, simformer_network),
}
NO_DEEPLAB = "no known segmentation weights"
ALL_LABELLED = "all photographs of its training have labels; give others with --images"
OTHER_DECODER = "--to: official names exist for model.decoder=deeplabv3 only"
EXPECTED = {  # system -> errors of --to official or torchvision, --to ours, --format without --images; "": none
    "ncdss": ("", "", ""),
    "ssul": (NO_DEEPLAB, NO_DEEPLAB, ALL_LABELLED),
    "probe": ("", "", ALL_LABELLED),
    "maskcontrast": (NO_DEEPLAB, NO_DEEPLAB, ALL_LABELLED),
    "zs3": (OTHER_DECODER, "", ""),
    "simformer": (NO_DEEPLAB, NO_DEEPLAB, ""),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each system with an untrained network; bar and dot are novel, unseen or learned later."""
    folder = tmp_path_factory.mktemp("systems")
    shapes = make_task_shapes(folder / "shapes")
    (shapes / "two.yaml").write_text("novel: [bar, dot]\n")
    root = make_voc(folder / "voc", train=8, val=4)
    torch.manual_seed(0)
    checkpoints = {}
    for system, (tree, build) in NETWORKS.items():
        data = {**tree["data"], "train_list": "trainaug", "dataset": str(shapes), "root": str(root)}
        if system == "simformer":
            data |= {"tags": "image", "masks": "base"}
        cfg = validate({**tree, "data": data, "output_dir": str(folder / "out")}, system, schema_of(system))
        model, outputs = build(cfg)
        about = {"classes": list(enumerate(CLASSES + ["cluster"]))[:outputs], "config": cfg.model_dump(mode="json")}
        checkpoints[system] = folder / f"{system}.pth"
        checkpoint.save(checkpoints[system], {"model": model.state_dict(), "metrics": {}, **about})
    return checkpoints


def test_every_system_is_exported():
    assert NETWORKS.keys() == EXPECTED.keys() == SYSTEMS.keys()


def export_status(source: Path, target: Path, *options: str, capsys) -> tuple[int, str]:
    """(exit status, error); a failure is one line and leaves nothing behind."""
    status = guarded(export.main, [str(source), str(target), *options])
    out, err = capsys.readouterr()
    if status:
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and not target.exists()
    else:
        assert out.startswith(f"{target}: ") and target.exists()
    return status, err


@pytest.mark.parametrize("form", ["official", "torchvision", "ours", *FORMATS])
@pytest.mark.parametrize("system", NETWORKS)
def test_every_system_to_every_format(made, tmp_path, capsys, system, form):
    other_names, our_names, labelled = EXPECTED[system]
    problem = labelled if form in FORMATS else our_names if form == "ours" else other_names
    option = "--format" if form in FORMATS else "--to"
    status, err = export_status(made[system], tmp_path / "made", option, form, capsys=capsys)
    assert problem in err and status == (2 if problem else 0)


@pytest.mark.parametrize("system", NETWORKS)
def test_every_system_to_onnx(made, tmp_path, capsys, system):
    """Without the optional packages an error says so; with them, mask transformers have no ONNX form."""
    status, err = export_status(made[system], tmp_path / "made.onnx", "--format", "onnx", capsys=capsys)
    if not all(map(find_spec, PACKAGES)):
        assert "--format onnx needs onnx" in err
    elif system == "simformer":
        assert "a mask transformer; --format onnx writes networks with a logit per class" in err


@pytest.mark.parametrize("system", NETWORKS)
def test_photographs_are_labelled_by_every_system(made, tmp_path, system):
    folder = made[system].parent / "voc" / "images"
    options = ["--format", "folder", "--images", str(folder)]
    assert guarded(export.main, [str(made[system]), str(tmp_path / "made"), *options]) == 0
    labels = sorted(path.stem for path in (tmp_path / "made" / "labels").iterdir())
    assert labels == sorted(path.stem for path in folder.iterdir())
