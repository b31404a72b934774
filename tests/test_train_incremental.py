"""Class-incremental training on a few drawn images, and its steps against the formulas written out plainly."""

import copy
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import eval as evaluation
import predict
import train_incremental
from data.incremental.builder import IncrementalData, step_folder
from data.io import read_image, read_label
from losses.ssul import binary_cross_entropy
from models.incremental.inplace_abn import AbnDeepLab
from models.incremental.network import build_incremental
from tests.conftest import CLASSES, official_abn, write_task
from train_incremental import SharedTrunkSsulRecipe, SsulRecipe, build_recipe, run_step
from utils import checkpoint
from utils.config.reader import load_config
from utils.run import guarded, start_run


@pytest.fixture
def config(task_config):
    return task_config


def load(config, *overrides) -> IncrementalData:
    return IncrementalData.open(load_config([str(config), *overrides], ""))


def run(config, *overrides) -> int:
    return guarded(train_incremental.main, [str(config), *overrides])


@pytest.fixture(scope="session")
def finished(voc, task_shapes, tmp_path_factory):
    """A function that copies the finished steps of a method into an output folder; each method trains once."""
    config = write_task(tmp_path_factory.mktemp("tasks") / "small.yaml", task_shapes, voc)

    def copy_to(output, method: str) -> None:
        assert run(config, f"method={method}") == 0
        data, made = load(config, f"method={method}"), config.parent / "out" / "abc-overlap"
        for name in [step_folder(data.cfg, step) for step in range(data.num_steps)]:
            shutil.copytree(made / name, output / "abc-overlap" / name, copy_function=link_weights)
        for file in filter(Path.is_file, (made / method).iterdir()):
            shutil.copy2(file, output / "abc-overlap" / method)

    return copy_to


def link_weights(source: str, target: str) -> None:
    """Weights are large, and replaced, never changed."""
    (os.link if source.endswith(".pth") else shutil.copy2)(source, target)


@pytest.fixture
def trained(finished, tmp_path):
    """A function that leaves what training by a method leaves, in the output folder of `config`."""
    return lambda method: finished(tmp_path / "out", method)


def read(folder, name="metrics.json") -> dict:
    return json.loads((folder / name).read_text())


# ---- the whole task


@pytest.mark.parametrize("method", ["ssul", "ssul_m", "mib", "plop", "finetune", "joint"])
def test_every_method_learns_every_step(config, trained, tmp_path, method):
    trained(method)
    out = tmp_path / "out" / "abc-overlap"
    last = 0 if method == "joint" else 2
    metrics = read(out / method / f"step{last}")
    assert list(metrics["per_class"]) == CLASSES and metrics["images"] == 12
    assert {"old_miou", "new_miou", "miou", "foreground_miou", "validation", "protocol"} <= metrics.keys()
    values = [value or 0.0 for value in metrics["per_class"].values()]
    assert metrics["old_miou"] == pytest.approx(np.mean(values[:3]))
    assert metrics["new_miou"] == pytest.approx(np.mean(values[3:]))
    summary = read(out / method, "summary.json")
    assert summary["last"] == metrics and (out / method / "curve.svg").exists()
    if method == "ssul_m":
        memory = read(out / method / "step2", "memory.json")
        assert sum(map(len, memory["by_class"].values())) == 5 and set(memory["by_class"]) == {"disc", "square", "bar"}
        assert read_image(out / method / "step2" / "memory.jpg").shape[0] > 3 * 112  # a row per class


def test_finished_steps_are_skipped_and_methods_share_step_0(config, trained, tmp_path, capsys):
    trained("ssul")
    before = (tmp_path / "out" / "abc-overlap" / "ssul" / "step0" / "best.pth").stat().st_mtime_ns
    capsys.readouterr()
    assert run(config, "method=ssul_m") == 0
    assert "ssul/step0: already finished" in capsys.readouterr().out
    assert (tmp_path / "out" / "abc-overlap" / "ssul" / "step0" / "best.pth").stat().st_mtime_ns == before


def test_stopped_inside_a_step_and_resumed(config, trained, tmp_path, monkeypatch):
    """SIGTERM in the third iteration of step 1: the same final network and figures as without it."""
    trained("ssul_m")
    other = f"output_dir={tmp_path / 'other'}"
    plain, seen = train_incremental.SharedTrunkSsulRecipe.step, []

    def step(self, batch, epoch):
        seen.append(self.number)
        if seen.count(1) == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, batch, epoch)

    monkeypatch.setattr(train_incremental.SharedTrunkSsulRecipe, "step", step)
    assert run(config, "method=ssul_m", other) == 75
    monkeypatch.undo()
    assert run(config, "method=ssul_m", other) == 0
    one, two = (tmp_path / name / "abc-overlap" / "ssul_m" / "step2" for name in ("out", "other"))
    assert read(one)["per_class"] == read(two)["per_class"]
    first, second = (checkpoint.load(folder / "last.pth")["model"] for folder in (one, two))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read(one, "memory.json") == read(two, "memory.json")


def test_wrong_input_is_one_line(config, capsys):
    assert run(config, "task=abd") == 2
    assert "task=abd: no such task of" in capsys.readouterr().err
    assert run(config, "ssul.treshold=0.5") == 2
    assert "unknown key 'ssul.treshold'; did you mean" in capsys.readouterr().err


# ---- SSUL


def opened(config, method: str, number: int, *overrides):
    """(steps, folder of the step before) after the steps up to `number` - 1 have run."""
    steps = load(config, f"method={method}", *overrides)
    for earlier in range(number):
        run_step(steps, earlier)
    folder = steps.cfg.output_dir / "abc-overlap"
    return steps, folder / step_folder(steps.cfg, number - 1) / "best.pth"


def batch_of(steps: IncrementalData, number: int) -> dict:
    (batch,) = steps.source("x", steps.train(number)).epoch(0, range(1))
    return batch


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("model.decoder=deeplabv3plus",),
        ("model.decoder=mlp",),
        ("ssul.loss=ce",),
        ("ssul.loss=focal",),
        ("ssul.unknown=off",),
    ],
)
def test_shared_trunk_has_the_losses_and_gradients_of_two_networks(config, options, monkeypatch):
    """The faster form of a step against the plain one, after some iterations: the trained heads have moved on."""
    data, previous = opened(config, "ssul", 2, "model.backbone=resnet18", *options)
    recipes = []
    for form in (SsulRecipe, SharedTrunkSsulRecipe):
        monkeypatch.setattr(train_incremental, "recipe_of", lambda cfg, step, form=form: form)
        with start_run(data.cfg, "check", (), {}) as opened_run:  # the same draws for the new head
            recipes.append(build_recipe(data.cfg, data, 2, previous, opened_run))
    batch = batch_of(data, 2)
    for recipe in recipes:
        with torch.no_grad():
            for index in range(recipe.last_background + 1):
                recipe.model.classifier.head[index][3].bias += 0.3
        recipe.model.train()
        recipe.losses = recipe.step({"new": batch}, 0)
        sum(recipe.losses.values()).backward()
    plain, shared = recipes
    label = plain.mixed({"new": batch})[1]
    with torch.no_grad():
        target = plain.with_pseudo(label, plain.old(plain.model.normalize(batch["image"])).logits)
    assert not torch.equal(target, label)  # pseudo-labels take part
    if data.cfg.ssul.loss != "bce" or not plain.unknown:  # else the value lacks the channels without gradient
        assert [v.item() for v in shared.losses.values()] == pytest.approx([v.item() for v in plain.losses.values()])
    expected = dict(plain.model.named_parameters())
    trained = [name for name, parameter in expected.items() if parameter.requires_grad]
    assert len(trained) == 3 * (3 if plain.unknown else 1)  # two weights and a bias per head
    for name, parameter in shared.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-7, msg=name)
        else:
            assert parameter.grad is None and expected[name].grad is None


def test_the_plain_step_of_ssul_against_its_formula(config):
    data, previous = opened(config, "ssul", 1, "ssul.freeze=false")
    with start_run(data.cfg, "check", (), {}) as opened_run:
        recipe = build_recipe(data.cfg, data, 1, previous, opened_run)
        assert type(recipe) is SsulRecipe
        batch, new = batch_of(data, 1), copy.deepcopy(recipe.model).train()
        image = new.normalize(batch["image"])
        moved = torch.where(batch["label"] == 255, 255, batch["label"].long() + 1)
        label = torch.where((batch["label"] == 0) & (batch["saliency"] > 0), 0, moved)
        recipe.model.train()
        score, old = recipe.old(image).logits.sigmoid().max(1)
        target = torch.where((label <= 1) & (old > 1) & (score >= 0.1), old, label)
        expected = binary_cross_entropy(new(image).logits, target)
        found = recipe.step({"new": batch}, 0)
        assert found.keys() == {"bce"} and found["bce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_three_heads_change(config, trained, tmp_path):
    """Convolutions of the newest, unknown and background head; no other weight, no BatchNorm, no statistic."""
    trained("ssul")
    folder = tmp_path / "out" / "abc-overlap" / "ssul"
    before, after = (checkpoint.load(folder / name)["model"] for name in ("step1/best.pth", "step2/last.pth"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    expected = {f"classifier.head.{head}.{key}" for head in (0, 1) for key in ("0.weight", "3.weight", "3.bias")}
    assert changed and changed <= expected
    assert set(after) - set(before) == {key for key in after if key.startswith("classifier.head.4.")}


def test_rates_of_the_groups(config):
    steps, previous = opened(config, "ssul", 1, "training.lr=0.02", "training.first_lr=0.01")
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        later = build_recipe(steps.cfg, steps, 1, previous, opened_run).parameter_groups()
        rates = {group["name"]: group["lr"] for group in later}
        assert rates == {"new": 0.02, "unknown": 0.02, "background": 0.02 * 1e-4}
        first = build_recipe(steps.cfg, steps, 0, None, opened_run).parameter_groups()
        assert {group["name"]: group["lr"] for group in first} == {"decoder": 0.01, "backbone": 0.001}


@pytest.mark.parametrize("labels", ["official", "corrected"])
def test_exemplars_replace_half_of_the_batch(config, labels, voc):
    steps, previous = opened(config, "ssul_m", 1, f"ssul.memory_labels={labels}")
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        recipe = build_recipe(steps.cfg, steps, 1, previous, opened_run, ["t000", "t001"])
        assert recipe.sources(0, opened_run).keys() == {"new", "memory"}
        new = batch_of(steps, 1)
        memory = {name: values.clone() if torch.is_tensor(values) else values for name, values in new.items()}
        memory["image"], memory["label"] = torch.zeros_like(new["image"]), torch.full_like(new["label"], 2)
        image, label = recipe.mixed({"new": new, "memory": memory})
        replaced = (image == 0).flatten(1).all(1)
        assert replaced.sum() == 2
        assert (label[replaced] == {"official": 2, "corrected": 3}[labels]).all()
        assert (label[~replaced] != {"official": 2, "corrected": 3}[labels]).any()


def test_exemplars_hold_the_classes_they_stand_for(config, trained, tmp_path, voc):
    trained("ssul_m")
    memory = read(tmp_path / "out" / "abc-overlap" / "ssul_m" / "step1", "memory.json")["by_class"]
    for name, ids in memory.items():
        for image_id in ids:
            assert CLASSES.index(name) in read_label(voc / "SegmentationClassAug" / f"{image_id}.png")


# ---- evaluation of checkpoints


@pytest.mark.parametrize("method", ["ssul", "mib"])
def test_eval_of_any_step_gives_the_figures_of_training(config, trained, tmp_path, method):
    trained(method)
    folder = tmp_path / "out" / "abc-overlap"
    for step in (0, 2):
        trained = folder / step_folder(load(config, f"method={method}").cfg, step)
        options = [f"method={method}", f"checkpoint={trained / 'best.pth'}", "resume=false"]
        assert guarded(evaluation.main, [str(config), *options]) == 0
        found, expected = read(folder / f"eval_step{step}"), read(trained)
        assert found["per_class"] == expected["per_class"] and found["step"] == step
        matrix = np.load(folder / f"eval_step{step}" / "confusion.npy")
        union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
        known = [value or 0.0 for value in expected["per_class"].values()]
        assert known == pytest.approx(matrix.diagonal() / np.maximum(union, 1))


def test_eval_of_an_official_checkpoint(config, trained, tmp_path):
    """Its wrapping, with a numpy scalar; at the images' own size the figures are another protocol's."""
    trained("ssul")
    state = checkpoint.load(tmp_path / "out" / "abc-overlap" / "ssul" / "step1" / "best.pth")["model"]
    wrapped = {"model_state": state, "optimizer_state": {}, "best_score": np.float64(0.5)}
    torch.save(wrapped, tmp_path / "official.pth")
    for native in ("false", "true"):
        options = [f"checkpoint={tmp_path / 'official.pth'}", f"evaluation.native={native}", "resume=false"]
        assert guarded(evaluation.main, [str(config), *options]) == 0
        metrics = read(tmp_path / "out" / "abc-overlap" / "eval_step1")
        assert len(metrics["per_class"]) == 4 and metrics["images"] == 12
        assert metrics["protocol"] == ("image size" if native == "true" else "shorter side and centre crop")


def test_eval_of_a_file_that_is_no_step(config, tmp_path, capsys):
    torch.save({"model_state": {"body.weight": torch.zeros(1)}}, tmp_path / "mib.pth")
    assert guarded(evaluation.main, [str(config), f"checkpoint={tmp_path / 'mib.pth'}"]) == 2
    assert "not the network of a step (its keys begin with body)" in capsys.readouterr().err
    other = build_incremental(load(config).cfg.model, [9], linear=True)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    assert guarded(evaluation.main, [str(config), f"checkpoint={tmp_path / 'other.pth'}"]) == 2
    assert "its heads have [9] outputs, which is no step of task=abc" in capsys.readouterr().err


def test_eval_without_a_file_takes_the_last_step(config, trained, tmp_path, capsys):
    assert guarded(evaluation.main, [str(config), "method=finetune"]) == 2
    assert "has not finished; run first: python train_incremental.py CONFIG method=finetune" in capsys.readouterr().err
    trained("finetune")
    assert guarded(evaluation.main, [str(config), "method=finetune"]) == 0
    out = tmp_path / "out" / "abc-overlap"
    found, trained = read(out / "eval_step2"), read(out / "finetune" / "step2")
    assert found["per_class"] == trained["per_class"] and np.load(out / "eval_step2" / "confusion.npy").shape == (5, 5)


# ---- discovered classes


@pytest.mark.parametrize("method", ["ssul_m", "mib"])
def test_clusters_are_learned_step_by_step(config, tmp_path, pseudo, method):
    assert run(config, "setting=discovered", f"pseudo_dir={pseudo}", f"method={method}") == 0
    out = tmp_path / "out" / "abc-discovered" / method
    first, last = read(out / "step1"), read(out / "step2")
    assert [cluster for cluster, _ in last["match"]] == [0, 1] and sorted(k for _, k in last["match"]) == [0, 1]
    assert list(last["per_class"]) == CLASSES and len(first["per_class"]) == 4
    options = ["setting=discovered", f"pseudo_dir={pseudo}", f"checkpoint={out / 'step2' / 'best.pth'}"]
    assert guarded(evaluation.main, [str(config), *options]) == 0
    assert read(out.parent / "eval_step2")["per_class"] == last["per_class"]


# ---- protocols and files


def test_predictions_and_a_model_for_single_images(config, trained, tmp_path, voc):
    trained("ssul")
    out = tmp_path / "out" / "abc-overlap"
    options = [f"checkpoint={out / 'ssul' / 'step1' / 'best.pth'}", "save_predictions=true"]
    assert guarded(evaluation.main, [str(config), *options]) == 2
    assert guarded(evaluation.main, [str(config), *options, "evaluation.native=true", "data.image_size=40"]) == 0
    image = voc / "images" / "v001.jpg"
    for model in (out / "eval_step1" / "model.pth", out / "ssul" / "step1" / "best.pth"):
        assert guarded(predict.main, [str(model), str(image), "--to", str(tmp_path / "made")]) == 0
        assert read_label(tmp_path / "made" / "v001.png").shape == (40, 40)
        if model.name == "model.pth":  # shorter side 40: the image's own size
            assert np.array_equal(
                read_label(tmp_path / "made" / "v001.png"), read_label(out / "eval_step1" / "predictions" / "v001.png")
            )


def test_official_mib_checkpoint(config, tmp_path, capsys):
    model = AbnDeepLab("resnet18", 16, [3, 1])
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save({"model_state": official_abn(state), "epoch": 29}, tmp_path / "abc-voc_MiB_1.pth")
    options = ["model.backbone=resnet18", f"checkpoint={tmp_path / 'abc-voc_MiB_1.pth'}"]
    assert guarded(evaluation.main, [str(config), *options]) == 0
    assert "4 outputs, evaluated as step1" in capsys.readouterr().out
    metrics = read(tmp_path / "out" / "abc-overlap" / "eval_step1")
    assert list(metrics["per_class"]) == CLASSES[:4]


def test_border_of_mib_is_background_and_shares_step_0_only_when_ignored(config, tmp_path):
    steps = load(config, "method=mib")
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        batch = {
            "new": {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "label": torch.tensor([[[0, 1], [255, 2]]])}
        }
        labels = build_recipe(steps.cfg, steps, 0, None, opened_run).inputs(batch)[1]
    assert labels.tolist() == [[[0, 1], [0, 2]]]
    assert step_folder(steps.cfg, 0) == "mib/step0"
    ignored = load(config, "method=mib", "mib.border=ignore")
    assert step_folder(ignored.cfg, 0) == "finetune/step0"


def test_later_classes_may_count_as_background(config, trained, tmp_path):
    """As in a task that does not have them at all."""
    trained("ssul")
    out = tmp_path / "out" / "abc-overlap"
    (tmp_path / "ab.yaml").write_text("steps: [[disc, square], [bar]]\n")
    figures = []
    for options in (["evaluation.later=background"], [f"task={tmp_path / 'ab.yaml'}"], []):
        options += [f"checkpoint={out / 'ssul' / 'step1' / 'best.pth'}", "resume=false"]
        assert guarded(evaluation.main, [str(config), *options]) == 0
        folder = tmp_path / "out" / ("ab-overlap" if "ab.yaml" in options[0] else "abc-overlap")
        figures.append(read(folder / "eval_step1")["per_class"])
    assert figures[0] == figures[1] != figures[2]


def test_step_0_does_not_depend_on_the_rates_of_later_steps(config, trained, tmp_path, capsys):
    trained("ssul")
    assert run(config, "method=ssul", "training.lr=0.5") == 2
    out, err = capsys.readouterr()
    assert "ssul/step0: already finished" in out and "step1 was made with other settings (training.lr" in err
    assert run(config, "method=ssul", "training.first_lr=0.5") == 2
    assert "step0 was made with other settings (training.first_lr" in capsys.readouterr().err
