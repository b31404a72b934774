"""The linear probe from end to end on a few drawn images: training, resuming, evaluation, CRF, official files."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import predict
import probe_features
from data.contrast.probes import ProbeData
from data.io import read_image, read_label
from models.contrast.probes import LinearProbe, build_features, build_probe, load_probe
from models.segmentation_files import to_official
from tests.conftest import CLASSES
from tests.probes import BACKBONE, loaded, read, run, write_config, write_encoder
from utils import checkpoint
from utils.measure.metrics import iou
from utils.run import guarded


@pytest.fixture(scope="module")
def encoder(voc, tmp_path_factory):
    return write_encoder(voc, tmp_path_factory.mktemp("weights") / "checkpoint.pth.tar")


@pytest.fixture
def config(voc, encoder, tmp_path):
    return write_config(voc, encoder, tmp_path)


@pytest.mark.parametrize("options", [(), BACKBONE])
def test_linear_probe_trains_one_layer_and_is_scored_at_image_size(config, tmp_path, options):
    assert run(config, "mode=linear", "save_predictions=true", *options) == 0
    folder = tmp_path / "out" / ("plain" if options else "net")
    metrics, online = (read(folder / stage / "metrics.json") for stage in ("eval_linear", "linear"))
    assert metrics["images"] == 12 and metrics["protocol"] == "image size" and list(metrics["per_class"]) == CLASSES
    assert [row["model"] for row in metrics["compared"]] == ["best epoch", "last epoch"]
    assert metrics["compared"][0]["miou"] == metrics["miou"] and {"miou", "last"} <= online.keys()
    cfg = loaded(config, *options)
    torch.manual_seed(cfg.seed)
    trained, fresh = load_probe(cfg, folder / "linear" / "last.pth", 5).state_dict(), build_probe(cfg, 5).state_dict()
    changed = {key for key in fresh if not torch.equal(fresh[key], trained[key])}
    if not options:  # a random backbone is drawn anew
        assert changed == {"classifier.weight", "classifier.bias"}
    matrix = np.zeros((5, 5))
    for path in (folder / "eval_linear" / "predictions").iterdir():
        truth, prediction = read_label(cfg.data.root / "SegmentationClassAug" / path.name), read_label(path)
        np.add.at(matrix, (truth[truth != 255], prediction[truth != 255]), 1)
    assert metrics["miou"] == pytest.approx(np.nan_to_num(iou(matrix)).mean(), abs=1e-12)
    assert np.array_equal(np.load(folder / "eval_linear" / "confusion.npy"), matrix)


def test_a_trained_probe_labels_single_images(config, tmp_path):
    """predict.py gives the same label image as the evaluation."""
    assert run(config, "mode=linear", "save_predictions=true") == 0
    folder, photo = tmp_path / "out" / "net", loaded(config).data.root / "images" / "v001.jpg"
    given = [str(folder / "linear" / "best.pth"), str(photo), "--to", str(tmp_path / "labels"), "--device", "cpu"]
    assert guarded(predict.main, given) == 0
    expected = read_label(folder / "eval_linear" / "predictions" / "v001.png")
    assert np.array_equal(read_label(tmp_path / "labels" / "v001.png"), expected)


def test_step_is_cross_entropy_of_one_convolution(config):
    """Value and gradients by hand from the frozen features; dropout stays off while training."""
    cfg = loaded(config, "mode=linear", "data.border=ignore")
    data = ProbeData.open(cfg)
    with probe_features.start_run(cfg, "x", (), {}) as stage:
        model = stage.place(build_probe(cfg, data.num_classes))
        recipe = probe_features.LinearRecipe(model, cfg.training)
        (batch,) = data.source("train", data.train()).epoch(0, range(1))
        recipe.model.train()
        loss = recipe.step({"train": batch}, 0)["ce"]
        loss.backward()
    probe, image = recipe.model, recipe.model.normalize(batch["image"])
    encoder = build_features(cfg).network
    with torch.no_grad():
        features = encoder.features(image)
    weight, bias = (p.detach().clone().requires_grad_() for p in (probe.classifier.weight, probe.classifier.bias))
    logits = F.interpolate(F.conv2d(features, weight, bias), size=(32, 32), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(logits, batch["label"].long(), ignore_index=255)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(probe.classifier.weight.grad, weight.grad)
    torch.testing.assert_close(probe.classifier.bias.grad, bias.grad)
    assert all(p.grad is None for name, p in probe.named_parameters() if not name.startswith("classifier."))


def test_train_miou_is_of_the_pixels_before_each_step(config, tmp_path, monkeypatch):
    """All predictions of one epoch in one matrix, as in the official program; none of the previous epoch."""
    plain, seen = LinearProbe.forward, []

    def forward(self, image):
        output = plain(self, image)
        if torch.is_grad_enabled():  # not in validation
            seen.append(output.logits.argmax(1))
        return output

    monkeypatch.setattr(LinearProbe, "forward", forward)
    assert run(config, "mode=linear") == 0
    monkeypatch.undo()
    cfg, shares = loaded(config, "mode=linear"), []
    data = ProbeData.open(cfg)
    source = data.source("train", data.train())
    labels = [batch["label"] for epoch in range(2) for batch in source.epoch(epoch, range(2))]
    for epoch in range(2):
        matrix = np.zeros((5, 5))
        for label, pred in list(zip(labels, seen, strict=True))[2 * epoch : 2 * epoch + 2]:
            counted = label != 255
            np.add.at(matrix, (label[counted].numpy(), pred[counted].numpy()), 1)
        shares.append(np.nan_to_num(iou(matrix)).mean())
    folder = tmp_path / "out" / "net" / "linear"
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    found = [line["val"]["train_miou"] for line in lines if "val" in line]
    metrics = read(folder / "metrics.json")
    assert found == pytest.approx(shares) and metrics["last"]["train_miou"] == found[-1]
    assert metrics["train_miou"] == found[metrics["epoch"] - 1]
    assert "train_miou" in (folder / "log.txt").read_text()


def test_a_killed_probe_goes_on_where_it_was(config, tmp_path, monkeypatch):
    """SIGTERM in the third of four iterations: the same final layer and figures as without it."""
    assert run(config, "mode=linear", "name=whole") == 0
    plain, seen = probe_features.LinearRecipe.step, []

    def step(self, batch, epoch):
        seen.append(epoch)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(probe_features.LinearRecipe, "step", step)
    assert run(config, "mode=linear", "name=stopped") == 75
    monkeypatch.undo()
    assert run(config, "mode=linear", "name=stopped") == 0
    first, second = (checkpoint.load(tmp_path / "out" / n / "linear" / "last.pth") for n in ("whole", "stopped"))
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    assert first["history"] == second["history"]
    one, two = (read(tmp_path / "out" / n / "eval_linear" / "metrics.json") for n in ("whole", "stopped"))
    assert one["per_class"] == two["per_class"] and one["compared"] == two["compared"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_official_linear_probe_is_scored_at_once(config, tmp_path, wrapped):
    assert run(config, "mode=linear") == 0
    state = to_official({"student": checkpoint.load(tmp_path / "out" / "net" / "linear" / "best.pth")["model"]})
    assert {"decoder.4.weight", "decoder.4.bias"} <= state.keys()
    path = tmp_path / "best_model.pth.tar"
    torch.save(
        {"optimizer": {}, "model": state, "epoch": 60, "best_epoch": 3, "best_iou": 0.5} if wrapped else state, path
    )
    assert run(config, "mode=linear", f"checkpoint={path}", "name=null") == 0
    ours, theirs = (read(tmp_path / "out" / n / "eval_linear" / "metrics.json") for n in ("net", "best_model"))
    assert ours["per_class"] == theirs["per_class"] and not (tmp_path / "out" / "best_model" / "linear").exists()


def test_crf_sees_logits_and_the_image_itself(config, tmp_path, monkeypatch):
    """A stand-in for the CRF that labels bright pixels of the whole image; only the best epoch is refined."""
    monkeypatch.setattr(probe_features, "require_crf", lambda: None)
    seen = []

    def bright(logits, image):
        seen.append((logits.shape, logits.dtype, image.shape))
        return (image[..., 0] > 150).astype(np.uint8)

    monkeypatch.setattr(probe_features, "refine", bright)
    assert run(config, "mode=linear", "evaluation.crf=true", "save_predictions=true") == 0
    assert seen == [((5, 32, 32), np.float32, (40, 40, 3))] * 12
    folder = tmp_path / "out" / "net" / "eval_linear_crf"
    metrics = read(folder / "metrics.json")
    assert metrics["protocol"] == "image size, CRF" and len(metrics["compared"]) == 1
    image = read_image(next((loaded(config).data.root / "images").glob("v000.jpg")))
    assert np.array_equal(read_label(folder / "predictions" / "v000.png"), (image[..., 0] > 150).astype(np.uint8))


def test_crf_without_its_package_fails_before_training(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert run(config, "mode=linear", "evaluation.crf=true") == 2
    assert "evaluation.crf=true: needs pydensecrf2" in capsys.readouterr().err and not (tmp_path / "out").exists()
