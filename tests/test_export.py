"""Weights files rewritten for other programs, and what was trained here or elsewhere evaluated the same way."""

import json

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

import eval as evaluation
import export
from data.io import read_image, read_label
from data.transforms import ValTransform
from models.deeplab import DeepLabV3
from models.deeplab_files import read_deeplab, read_networks
from models.teacher_student import TeacherStudent
from models.trunks import build_backbone
from tests.conftest import balance
from tests.probes import write_encoder
from utils import checkpoint
from utils.errors import UserError
from utils.run import guarded


def network(num_classes: int, name: str = "resnet18") -> DeepLabV3:
    return DeepLabV3(build_backbone(name, 8, "random"), num_classes, (1, 2, 3), 8)


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
    both = TeacherStudent(DeepLabV3(build_backbone("resnet50", 8, "random"), 6))
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
    nan["classifier.4.bias"][2] = torch.nan
    torch.save(good, tmp_path / "good.pth")
    torch.save(nan, tmp_path / "nan.pth")
    (tmp_path / "folder").mkdir()
    encoder = write_encoder(voc, tmp_path / "encoder.pth")
    before = sorted(tmp_path.rglob("*"))
    for source, target, said in (
        (tmp_path / "good.pth", tmp_path / "folder", f"{tmp_path / 'folder'}: Is a directory"),
        (encoder, tmp_path / "a.pth", "no known segmentation weights"),
        (tmp_path / "nan.pth", tmp_path / "a.pth", "classifier.4.bias holds 1 values that are not finite"),
    ):
        assert guarded(export.main, [str(source), str(target), "--to", "official"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# ---- evaluation of files from elsewhere


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
        (["--format", "coco", "--size", "4x4"], "--size: --format coco has no use for it, --format onnx has"),
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
    assert read_deeplab(tmp_path / "one.pth").num_classes == 6
