"""All steps of zero-shot segmentation on drawn shapes, as on the command line, and what other scripts make of it."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import collect
import eval as evaluation
import predict
import report
import train_base
import train_zeroshot
from data.embeddings import write_table
from data.io import read_label
from tests.conftest import CLASSES
from utils import checkpoint
from utils.run import guarded

WORDS = [*CLASSES, "blob", "stripe"]
ZERO_SHOT = {
    "system": "zs3",
    "split": "dots",
    "seed": 5,
    "data": {"train_list": "trainaug", "image_size": 32, "workers": 0},
    "model": {
        "backbone": "mobilenet_v2",
        "init": "random",
        "head_channels": 8,
        "atrous_rates": [1, 2],
        "output_stride": 16,
    },
    "step1": {"epochs": 2, "iters_per_epoch": 2, "batch_size": 4, "eval_every": 2},
    "zs3": {
        "epochs": 2,
        "iters_per_epoch": 3,
        "batch_size": 4,
        "noise_dim": 3,
        "hidden": 6,
        "samples": 8,
        "save_every": 1,
    },
    "step3": {"epochs": 1, "iters_per_epoch": 2, "batch_size": 4},
    "evaluation": {"size": 40, "batch_size": 4},
}


def write_zero_shot(folder: Path, voc: Path) -> Path:
    dataset = folder / "zero_shapes"
    dataset.mkdir(parents=True)
    (dataset / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    (dataset / "dots.yaml").write_text("unseen: [dot]\n")
    write_table(folder / "words.npz", WORDS, np.random.RandomState(0).randn(len(WORDS), 4))
    data = {**ZERO_SHOT["data"], "dataset": str(dataset), "root": str(voc), "embeddings": str(folder / "words.npz")}
    path = folder / "zero_shot.yaml"
    path.write_text(yaml.safe_dump({**ZERO_SHOT, "output_dir": str(folder / "out"), "data": data}))
    return path


@pytest.fixture(scope="module")
def trained(voc, tmp_path_factory) -> Path:
    """The configuration of finished steps; read only."""
    config = write_zero_shot(tmp_path_factory.mktemp("zero_shot"), voc)
    assert guarded(train_base.main, [str(config)]) == 0
    for method in ("zs3", "zs3_gc", "devise", "zs5"):
        assert guarded(train_zeroshot.main, [str(config), f"method={method}"]) == 0, method
    assert guarded(train_zeroshot.main, [str(config), "strict_unseen=true"]) == 0
    for method in ("step1", "devise", "zs3", "zs3_gc", "zs5"):
        assert guarded(evaluation.main, [str(config), f"method={method}"]) == 0, method
    assert guarded(evaluation.main, [str(config), "strict_unseen=true"]) == 0
    return config


def stage(config: Path, name: str) -> Path:
    return config.parent / "out" / "dots" / name


def metrics(config: Path, name: str) -> dict:
    return json.loads((stage(config, name) / "metrics.json").read_text())


def test_step_two_changes_classifier_and_running_statistics_alone(trained):
    before = checkpoint.load(stage(trained, "step1") / "last.pth")["model"]
    after = checkpoint.load(stage(trained, "zs3") / "last.pth")["model"]
    assert {key for key in after if not key.startswith(("network.", "generator."))} == {"vectors"}
    for key, value in before.items():
        moved = key.startswith("classifier") or "running" in key or "tracked" in key
        assert not value.equal(after[f"network.{key}"]) if moved else value.equal(after[f"network.{key}"]), key


def test_evaluations_tell_seen_and_unseen_apart(trained):
    for name in ("step1", "devise", "zs3", "zs3_strict", "zs3_gc", "zs5"):
        found = metrics(trained, f"eval_{name}")
        assert found["protocol"] == "shorter side 40" and found["images"] == 12
        assert found["unseen_miou"] == (found["per_class"]["dot"] or 0)
        assert len(found["sweep"]["gamma"]) == len(found["sweep"]["unseen_miou"]) and 0 <= found["sweep"]["area"] <= 1
        assert {"seen_pixel_accuracy", "unseen_accuracy", "harmonic_miou"} <= found.keys()


def test_pseudo_labels_and_their_manifest(trained, voc):
    folder = stage(trained, "zs5") / "labels"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["percent"] == 25 and manifest["novel"] == ["dot"]
    assert manifest["made_from"] == {"network": checkpoint.digest(stage(trained, "zs3") / "last.pth")}
    with_dot = [f"t{i:03d}" for i in range(48) if i % 4 == 3]
    assert list(manifest["images"]) == with_dot
    for name, entry in manifest["images"].items():
        label = read_label(folder / f"{name}.png")
        assert set(np.unique(label).tolist()) <= {4, 255} and label.shape == (40, 40)
        assert (label == 4).sum() == entry["labelled"]
        assert (entry["confidence"] is None) == (entry["lowest"] == {})
        assert entry["confidence"] is None or entry["lowest"]["dot"] <= entry["confidence"] + 1e-4 <= 1 + 1e-4


@pytest.mark.parametrize(
    "method, step, how",
    [("zs3", 2, "killed"), ("zs3", 5, "stopped"), ("zs3_gc", 4, "killed"), ("devise", 3, "stopped")],
)
def test_a_run_that_was_disturbed_ends_the_same(trained, method, step, how, tmp_path, monkeypatch):
    arguments = [str(trained), f"method={method}", f"output_dir={tmp_path}"]
    if method != "devise":
        arguments.append(f"step1_checkpoint={stage(trained, 'step1') / 'last.pth'}")
    recipe = train_zeroshot.DeviseRecipe if method == "devise" else train_zeroshot.Zs3Recipe
    plain, steps = recipe.step, []

    def stopping(self, batch, epoch):
        steps.append(epoch)
        if len(steps) == step:
            if how == "killed":  # what was saved after the step before is all there is
                raise RuntimeError("killed")
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(recipe, "step", stopping)
    if how == "killed":
        with pytest.raises(RuntimeError):
            guarded(train_zeroshot.main, arguments)
    else:
        assert guarded(train_zeroshot.main, arguments) == 75
    monkeypatch.undo()
    assert guarded(train_zeroshot.main, arguments) == 0
    whole = checkpoint.load(stage(trained, method) / "last.pth")
    again = checkpoint.load(tmp_path / "dots" / method / "last.pth")
    assert all(value.equal(again["model"][key]) for key, value in whole["model"].items())
    if method != "devise":
        for name, state in whole["recipe"].items():
            for place, values in state["state"].items():
                for key, value in values.items():
                    assert torch.equal(value, again["recipe"][name]["state"][place][key]), (name, place, key)


def test_classes_that_were_in_no_list(trained, voc, tmp_path, capsys):
    image = str(voc / "images" / "v000.jpg")
    model = str(stage(trained, "zs3") / "last.pth")
    assert guarded(predict.main, [model, image, "--classes", "blob, dot, stripe", "--to", str(tmp_path / "a")]) == 0
    assert set(np.unique(read_label(tmp_path / "a" / "v000.png")).tolist()) <= set(range(7))
    assert guarded(predict.main, [model, image, "--classes", "zebra", "--to", str(tmp_path / "b")]) == 2
    assert "'zebra'" in capsys.readouterr().err
    assert guarded(predict.main, [model, image, "--classes", "dot", "--to", str(tmp_path / "b")]) == 2
    assert "the network has all of these classes" in capsys.readouterr().err
    step1 = str(stage(trained, "step1") / "last.pth")
    assert guarded(predict.main, [step1, image, "--classes", "blob", "--to", str(tmp_path / "b")]) == 2
    assert "holds no generator" in capsys.readouterr().err
    wanted = [step1, image, "--classes", "blob", "--generator", model, "--to", str(tmp_path / "c")]
    assert guarded(predict.main, wanted) == 0


def test_word_vectors_of_another_source_are_refused(trained, voc, tmp_path, capsys):
    write_table(tmp_path / "others.npz", WORDS, np.random.RandomState(1).randn(len(WORDS), 4))
    image, model = next((voc / "images").glob("v*.jpg")), stage(trained, "zs3") / "last.pth"
    given = [model, image, "--classes", "blob", "--embeddings", tmp_path / "others.npz", "--to", tmp_path / "a"]
    assert guarded(predict.main, [str(word) for word in given]) == 2
    assert "trained with other word vectors of its classes" in capsys.readouterr().err


def test_evaluation_with_classes_of_ones_own(trained, tmp_path):
    (tmp_path / "own.yaml").write_text("[blob]\n")
    arguments = [str(trained), f"classes={tmp_path / 'own.yaml'}", f"output_dir={tmp_path / 'own'}"]
    model = f"checkpoint={stage(trained, 'zs3') / 'last.pth'}"
    assert guarded(evaluation.main, [*arguments, model]) == 0
    folder = tmp_path / "own" / "dots" / "eval_zs3"
    assert len(np.load(folder / "confusion.npy")[0]) == 6
    assert tuple(checkpoint.load(folder / "model.pth")["classes"][5]) == (5, "blob")
    image = str(next(Path(yaml.safe_load(trained.read_text())["data"]["root"]).glob("images/v*.jpg")))
    assert guarded(predict.main, [str(folder / "model.pth"), image, "--to", str(tmp_path / "made")]) == 0


def test_official_files_are_evaluated(trained, tmp_path):
    """Both files of the official code, made of ours."""
    state = checkpoint.load(stage(trained, "zs3") / "last.pth")["model"]
    network = {key.removeprefix("network."): v for key, v in state.items() if key.startswith("network.")}
    generator = {key.removeprefix("generator."): v for key, v in state.items() if key.startswith("generator.")}
    about = {"epoch": 1, "optimizer": {}, "best_pred": np.float64(0.1)}
    torch.save({**about, "state_dict": network}, tmp_path / "segmentation.pth.tar")
    torch.save({**about, "state_dict": generator}, tmp_path / "generator.pth.tar")
    (tmp_path / "own.yaml").write_text("[blob]\n")
    base = [str(trained), f"checkpoint={tmp_path / 'segmentation.pth.tar'}", f"output_dir={tmp_path / 'out'}"]
    assert guarded(evaluation.main, base) == 0
    found = json.loads((tmp_path / "out" / "dots" / "eval_zs3" / "metrics.json").read_text())
    assert found["per_class"] == metrics(trained, "eval_zs3")["per_class"]
    extra = [f"classes={tmp_path / 'own.yaml'}", "resume=false"]
    assert guarded(evaluation.main, [*base, *extra]) == 2
    assert guarded(evaluation.main, [*base, *extra, f"generator_checkpoint={tmp_path / 'generator.pth.tar'}"]) == 0
    assert checkpoint.load(tmp_path / "out" / "dots" / "eval_zs3" / "model.pth")["classes"][5][1] == "blob"


def test_report_and_table(trained, capsys):
    assert guarded(report.main, [str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "zs3, strict" in shown and "unseen PA" in shown
    page = (stage(trained, "report.html")).read_text()
    assert "Calibrated bias" in page and "IoU of every class" in page and "dot" in page
    assert guarded(collect.main, [str(trained.parent / "out")]) == 0
    table = capsys.readouterr().out
    assert "dots, zs3, strict" in table and "area" in table and "harmonic" in table


def test_predictions_at_image_size_are_shown(trained, tmp_path):
    arguments = [str(trained), "evaluation.native=true", "save_predictions=true", "resume=false"]
    assert guarded(evaluation.main, [*arguments, "method=zs5"]) == 0
    assert metrics(trained, "eval_zs5")["protocol"] == "image size"
    assert guarded(report.main, [str(trained)]) == 0
    assert "What the networks see" in stage(trained, "report.html").read_text()


def test_wrong_input(trained, tmp_path, capsys):
    def line(*arguments: str, main=train_zeroshot.main) -> str:
        assert guarded(main, [str(trained), *arguments]) == 2
        return capsys.readouterr().err.strip()

    assert "method=step1: this script trains the other methods" in line("method=step1")
    assert "run first: python train_base.py CONFIG" in line(f"output_dir={tmp_path}")
    other = write_zero_shot(tmp_path / "other", Path(yaml.safe_load(trained.read_text())["data"]["root"]))
    (tmp_path / "other" / "zero_shapes" / "classes.yaml").write_text(yaml.safe_dump([*CLASSES, "blob"]))
    step1 = stage(trained, "step1") / "last.pth"
    assert guarded(train_zeroshot.main, [str(other), f"step1_checkpoint={step1}"]) == 2
    assert "has 5 outputs, this run needs 6; check data.dataset" in capsys.readouterr().err
    assert "graph.weight: for method=zs3_gc; ignored with method=zs3" in line("graph.weight=0.5")
