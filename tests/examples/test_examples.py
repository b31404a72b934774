"""The examples of docs/own_method.md: they run, the document shows them as they are, and no shared file names them."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
import yaml

import collect
import eval as evaluation
import finetune_novel
import predict
import report
from models.segmentation import build_network
from tests.conftest import TINY
from tests.examples.own_method.gce import GceRecipe, generalized_cross_entropy
from tests.examples.own_system import train_supervised
from tests.examples.own_system.record import SUPERVISED
from tests.processes import on_two_ranks
from utils import checkpoint
from utils.config.contrast import ContrastConfig
from utils.config.discovery import DiscoveryConfig
from utils.config.incremental import IncrementalConfig
from utils.config.keys import flatten
from utils.config.reader import load_config
from utils.config.weakshot import WeakShotConfig
from utils.config.zeroshot import ZeroShotConfig
from utils.run import guarded
from utils.systems import SYSTEMS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DOCUMENT = (ROOT / "docs" / "own_method.md").read_text()

# ---- the document


def test_the_document_shows_the_files():
    """Below a line that names a file, a block of code is that file."""
    shown = re.findall(r"^`(tests/examples/\S+)`:\n\n```\w+\n(.*?)^```$", DOCUMENT, re.M | re.S)
    assert len(shown) >= 8
    for path, code in shown:
        assert code == (ROOT / path).read_text(), path
    made = [path for path in HERE.glob("own_*/*") if path.suffix in (".py", ".yaml")]
    assert {path for path, _ in shown} == {str(path.relative_to(ROOT)) for path in made}


def test_a_method_takes_less_than_40_lines():
    assert len((HERE / "own_method" / "gce.py").read_text().splitlines()) < 40


def test_no_shared_file_knows_the_examples():
    words = re.compile(r"examples|own_system|\bgce\b|generalized_cross_entropy|SupervisedConfig|load_supervised", re.I)
    rooms = [path for room in ("data", "losses", "models", "utils", "reports") for path in (ROOT / room).rglob("*.py")]
    assert not [path for path in [*ROOT.glob("*.py"), *rooms] if words.search(path.read_text())]


# ---- a method


def test_generalized_cross_entropy():
    """By hand: two classes, p = 0.8 and 0.2 of the label, one pixel ignored."""
    logits = torch.tensor([[0.8, 0.2, 0.5], [0.2, 0.8, 0.5]]).log()[None, :, None]  # [1, 2, 1, 3]
    label = torch.tensor([[[0, 0, 255]]], dtype=torch.uint8)
    for q, expected in [(1.0, (0.2 + 0.8) / 2), (0.5, (2 * (1 - 0.8**0.5) + 2 * (1 - 0.2**0.5)) / 2)]:
        assert generalized_cross_entropy(logits, label, q).item() == pytest.approx(expected, rel=1e-5)
    nearly = generalized_cross_entropy(logits, label, 1e-4).item()  # cross-entropy
    assert nearly == pytest.approx(-(torch.tensor(0.8).log() + torch.tensor(0.2).log()).item() / 2, rel=1e-3)


def test_nothing_labelled_costs_nothing():
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = generalized_cross_entropy(logits, torch.full((1, 2, 2), 255), 0.7)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def overrides(tree: dict) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in flatten(tree).items()]


def test_the_method_from_training_to_the_report(tiny, pseudo, voc, tmp_path, capsys):
    """In the output_dir of the built-in methods, it has a stage, a column of report.py and a row of collect.py."""
    small = {key: value for key, value in yaml.safe_load(tiny.read_text()).items() if key != "system"}
    path = [
        str(HERE / "own_method" / "gce.yaml"),
        *overrides(small),
        "model.decoder=deeplabv3",
        "model.freeze=false",
        f"pseudo_dir={pseudo}",
    ]
    assert guarded(finetune_novel.main, path) == 0
    folder = tmp_path / "out" / "two"
    assert len(checkpoint.load(folder / "gce" / "best.pth")["classes"]) == 6
    assert guarded(finetune_novel.main, path) == 0 and "already finished" in capsys.readouterr().out
    assert guarded(finetune_novel.main, [*path, "own.q=0.2"]) == 2
    assert "own.q: 0.7 there, 0.2 now" in capsys.readouterr().err
    finish(path, folder / "gce" / "best.pth", voc, tmp_path)
    metrics = json.loads((folder / "eval_gce" / "metrics.json").read_text())
    assert metrics["images"] == 12 and "novel_miou" in metrics and len(metrics["match"]) == 3
    assert "gce" in capsys.readouterr().out
    assert collect.main([str(tmp_path / "out")]) == 0
    assert "gce" in capsys.readouterr().out


def test_the_method_on_two_processes_stopped_and_resumed(tiny, pseudo, tmp_path, monkeypatch):
    """SIGTERM on one of the processes in the third step: the network is that of an uninterrupted run."""
    small = {key: value for key, value in yaml.safe_load(tiny.read_text()).items() if key != "system"}
    given = [
        str(HERE / "own_method" / "gce.yaml"),
        *overrides(small),
        "model.decoder=deeplabv3",
        "model.freeze=false",
        f"pseudo_dir={pseudo}",
    ]
    parts = [tmp_path / name for name in ("whole", "stopped")]

    def train(folder: Path, status: int) -> int:
        return guarded(finetune_novel.main, [*given, f"output_dir={folder}"]) != status

    on_two_ranks(lambda: train(parts[0], 0))
    plain, steps = GceRecipe.step, []

    def step(self, batch, epoch):
        steps.append(epoch)
        if len(steps) == 3 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(GceRecipe, "step", step)
    on_two_ranks(lambda: train(parts[1], 75))
    assert not (parts[1] / "two" / "gce" / "metrics.json").exists()
    monkeypatch.undo()
    on_two_ranks(lambda: train(parts[1], 0))
    whole, resumed = (checkpoint.load(folder / "two" / "gce" / "last.pth") for folder in parts)
    assert whole["progress"]["step"] == resumed["progress"]["step"] == 4
    assert all(value.equal(resumed["model"][name]) for name, value in whole["model"].items())


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            "nowhere.gce:GceRecipe",
            "recipe=nowhere.gce:GceRecipe: no module 'nowhere'; start in the folder that holds it",
        ),
        ("tests.examples.own_method.gce:Nothing", "module 'tests.examples.own_method.gce' has no 'Nothing'"),
        ("losses.cross_entropy:cross_entropy", "not a subclass of utils.recipe.Recipe"),
        ("my.module", "recipe: string should match pattern"),
        ("my.module:BasicRecipe", "recipe=my.module:BasicRecipe: method 'basic' exists; rename the class"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_line(recipe, said, tiny, pseudo, capsys):
    assert guarded(finetune_novel.main, [str(tiny), "method=basic", f"recipe={recipe}", f"pseudo_dir={pseudo}"]) == 2
    error = capsys.readouterr().err
    assert said in error and sum(line.startswith("error") for line in error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "stage"),
    [("GceRecipe", "gce"), ("MyOwnLossRecipe", "my_own_loss"), ("EUMSv2", "eumsv2"), ("Recipe", "recipe")],
)
def test_the_class_names_the_stage(name, stage):
    recipe = f"my.module:{name}"
    assert IncrementalConfig(recipe=recipe).trained.stage == f"{stage}/step*"
    for schema in (DiscoveryConfig, ZeroShotConfig, WeakShotConfig, ContrastConfig):
        assert schema(recipe=recipe).own_method == schema(recipe=recipe).trained.stage == stage


def finish(path: list[str], best: Path, voc: Path, tmp_path: Path) -> None:
    """What every trained network goes through: eval.py, predict.py, report.py."""
    assert guarded(evaluation.main, [*path, "save_predictions=true"]) == 0
    image = voc / "images" / "v000.jpg"
    assert guarded(predict.main, [str(best), str(image), "--to", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made" / "v000.png").is_file()
    assert guarded(report.main, path) == 0
    assert (best.parents[1] / "report.html").is_file()


# ---- a system


@pytest.fixture
def registered(monkeypatch):
    """With the record in utils/systems.py."""
    monkeypatch.setitem(SYSTEMS, "supervised", SUPERVISED)


def test_the_system_from_training_to_the_table(registered, tiny, voc, tmp_path, capsys):
    whole = yaml.safe_load(tiny.read_text())
    small = {key: whole[key] for key in ("data", "model", "evaluation", "output_dir", "seed")}
    small["training"] = TINY["basic"]
    path = [str(HERE / "own_system" / "supervised.yaml"), *overrides(small)]
    assert guarded(train_supervised.main, path) == 0
    folder = tmp_path / "out" / "shapes"
    finish(path, folder / "train" / "best.pth", voc, tmp_path)
    metrics = json.loads((folder / "eval_train" / "metrics.json").read_text())
    assert metrics["images"] == 12 and list(metrics["per_class"]) == ["background", "disc", "square", "bar", "dot"]
    capsys.readouterr()
    assert collect.main([str(tmp_path / "out")]) == 0
    assert "pixel accuracy" in capsys.readouterr().out
    assert guarded(evaluation.main, [*path, f"checkpoint={folder / 'train' / 'last.pth'}", "resume=false"]) == 0
    assert (folder / "eval_train" / "model.pth").is_file()


def test_a_file_of_other_classes_is_refused(registered, tiny, tmp_path, capsys):
    small = {key: yaml.safe_load(tiny.read_text())[key] for key in ("data", "model", "output_dir")}
    path = [str(HERE / "own_system" / "supervised.yaml"), *overrides(small)]
    model = build_network(load_config(path, "").model, 3, init="random")
    torch.save(model.state_dict(), tmp_path / "three.pth")
    assert guarded(evaluation.main, [*path, f"checkpoint={tmp_path / 'three.pth'}"]) == 2
    assert "three.pth: has 3 outputs" in capsys.readouterr().err
