"""The examples of docs/own_method.md, run as a user runs them, and the document held against their files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import cluster_pseudolabel
import collect
import eval as evaluation  # the module's name is the script's
import predict
import report
from data.io import read_label
from data.systems import DATA
from losses.cross_entropy import cross_entropy
from models.segmenter import LOADERS, load_ncdss
from reports import PAGES, TABLES
from tests.conftest import TINY
from tests.examples.own_method import train_focal
from tests.examples.own_method.focal import focal_loss
from tests.examples.own_system import page, train_supervised
from tests.examples.own_system.config import SupervisedConfig
from tests.examples.own_system.data import SupervisedData
from utils.config.systems import SCHEMAS
from utils.run import guarded

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "examples"
TWO_STEPS = {"epochs": 1, "iters_per_epoch": 2, "batch_size": 4, "milestones": []}


def run(main, *arguments) -> int:
    return guarded(main, [str(argument) for argument in arguments])


def test_focal_loss_by_hand():
    """p = 0.8 of the true class in one pixel, 0.5 in another; the third is ignored."""
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])).T[None, :, None]
    label = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    expected = (0.2**2 * -np.log(0.8) + 0.5**2 * -np.log(0.5)) / 2
    assert focal_loss(logits, label, 2.0).item() == pytest.approx(expected)
    assert focal_loss(logits, label, 0.0).item() == pytest.approx(cross_entropy(logits, label).item())
    assert focal_loss(logits, torch.full_like(label, 255), 2.0).item() == 0


def test_own_method_takes_the_place_of_a_stage(tiny, tmp_path, capsys):
    """Trained, scored, clustered, predicted and shown by the scripts as they are."""
    config = yaml.safe_load(tiny.read_text()) | {"own": {"gamma": 2.0}, "base_training": TWO_STEPS}
    tiny.write_text(yaml.safe_dump(config))
    assert run(train_focal.main, tiny) == 0
    out = tmp_path / "out" / "two"
    history = [json.loads(line) for line in (out / "base" / "history.jsonl").read_text().splitlines()]
    assert any("focal" in json.dumps(entry) for entry in history)
    assert run(train_focal.main, tiny, "own.gamma=1") == 2  # a key of one's own decides the result, too
    assert "own.gamma: 2.0 there, 1 now" in capsys.readouterr().err
    assert run(evaluation.main, tiny, "method=base") == 0
    assert run(cluster_pseudolabel.main, tiny) == 0
    image = next((Path(config["data"]["root"]) / "images").glob("v*.jpg"))
    assert run(predict.main, out / "base" / "best.pth", image, "--to", tmp_path / "seen") == 0
    assert set(np.unique(read_label(tmp_path / "seen" / f"{image.stem}.png"))) <= {0, 1, 2}
    assert run(report.main, tiny) == 0 and (out / "report.html").is_file()


def test_own_system_is_one_line_in_each_dict(voc, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SCHEMAS, "supervised", SupervisedConfig)
    monkeypatch.setitem(DATA, "supervised", SupervisedData.open)
    monkeypatch.setitem(LOADERS, "supervised", load_ncdss)
    monkeypatch.setitem(PAGES, "supervised", page.page)
    monkeypatch.setitem(TABLES, "supervised", page.TABLE)
    tree = {
        "system": "supervised",
        "output_dir": str(tmp_path / "out"),
        "data": {**TINY["data"], "root": str(voc), "dataset": str(tmp_path)},
        "model": TINY["model"],
        "training": TWO_STEPS,
    }
    names = ["background", "disc", "square", "bar", "dot"]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(names))
    config = tmp_path / "supervised.yaml"
    config.write_text(yaml.safe_dump(tree))
    assert run(evaluation.main, config) == 2
    assert "run first: python -m tests.examples.own_system.train_supervised CONFIG" in capsys.readouterr().err
    assert run(train_supervised.main, config) == 0
    assert run(evaluation.main, config, "save_predictions=true") == 0
    metrics = json.loads((tmp_path / "out" / "eval_supervised" / "metrics.json").read_text())
    assert list(metrics["per_class"]) == names and metrics["protocol"] == "image size"
    assert len(list((tmp_path / "out" / "eval_supervised" / "predictions").glob("*.png"))) == metrics["images"]
    image = next((voc / "images").glob("v*.jpg"))
    assert run(predict.main, tmp_path / "out" / "supervised" / "best.pth", image, "--to", tmp_path / "seen") == 0
    assert run(report.main, config) == 0
    assert "disc" in (tmp_path / "out" / "report.html").read_text()
    capsys.readouterr()
    assert run(collect.main, tmp_path / "out") == 0
    assert re.search(rf"supervised +{100 * metrics['miou']:.1f}", capsys.readouterr().out)
    assert run(evaluation.main, config, "cluster.k=3") == 2
    assert "key 'cluster' means nothing to system supervised; it is one of ncdss" in capsys.readouterr().err


def test_the_document_shows_the_files_as_they_are():
    shown = re.findall(r"```(?:python|yaml) (\S+)\n(.*?)```", (ROOT / "docs" / "own_method.md").read_text(), re.S)
    assert {name for name, _ in shown} >= {
        f"tests/examples/own_method/{name}" for name in ("focal.py", "train_focal.py", "focal.yaml")
    }
    for name, code in shown:
        assert code == (ROOT / name).read_text(), f"docs/own_method.md shows another {name}"


def test_the_document_names_the_dicts_as_they_are():
    text = (ROOT / "docs" / "own_method.md").read_text()
    rows = re.findall(r"^\| `([\w/]+\.py)` \| `(\w+)\[\"supervised\"\] = ([\w.]+)` \|", text, re.M)
    assert {(file, name) for file, name, _ in rows} == {
        ("utils/config/systems.py", "SCHEMAS"),
        ("data/systems.py", "DATA"),
        ("models/segmenter.py", "LOADERS"),
        ("reports/__init__.py", "PAGES"),
        ("reports/__init__.py", "TABLES"),
    }
    for file, name, _ in rows:
        assert re.search(rf"^{name}\b", (ROOT / file).read_text(), re.M), f"{file} has no {name}"


def test_the_recipe_is_short_and_no_shared_file_knows_the_examples():
    assert len((EXAMPLES / "own_method" / "train_focal.py").read_text().splitlines()) < 60
    own = ("data", "models", "losses", "utils", "reports")
    shared = [*ROOT.glob("*.py"), *(path for room in own for path in (ROOT / room).rglob("*.py"))]
    assert len(shared) > 80
    assert not [str(path) for path in shared if "focal" in path.read_text() or "tests.examples" in path.read_text()]
