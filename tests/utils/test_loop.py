"""The training loop: reports, saving, stopping, and resuming to the last bit."""

import pytest
import torch

import finetune_novel
import train_base
from tests.fingerprint import fingerprint
from tests.utils.toy import ToyRecipe, ToySource, at_step, crash, history, terminate, toy_fit
from utils import checkpoint
from utils.errors import Interrupted, UserError
from utils.recipe import LATEST
from utils.run import guarded

EIGHT = ("base_training.batch_size=8",)  # the toy's batches have four rows whatever it says
SMALL = ("model.backbone=efficientnet_lite0", "base_training.log_every=1", "eums.log_every=1")


def reference(tiny, tmp_path, *overrides) -> str:
    _, run = toy_fit(tiny, ToyRecipe(), f"output_dir={tmp_path}/reference", *overrides)
    return fingerprint(run.dir)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, 9])  # 3 and 9 are last steps of an epoch
def test_stopped_and_resumed_is_uninterrupted(tiny, tmp_path, step):
    with pytest.raises(Interrupted, match=f"stopped at step {step}, saved"):
        toy_fit(tiny, ToyRecipe(trouble=at_step(step, terminate)))
    recipe = ToyRecipe()
    _, run = toy_fit(tiny, recipe)
    assert recipe.steps == 9 - step
    assert fingerprint(run.dir) == reference(tiny, tmp_path)


@pytest.mark.parametrize("save_every", ["null", "1", "2", "3"])
@pytest.mark.parametrize("step", [1, 5, 6, 7])
def test_crashed_and_resumed_is_uninterrupted(tiny, tmp_path, step, save_every):
    """A crash loses the steps after the last save, and what was reported about them."""
    every = f"base_training.save_every={save_every}"
    with pytest.raises(RuntimeError, match="crash"):
        toy_fit(tiny, ToyRecipe(trouble=at_step(step, crash)), every)
    recipe = ToyRecipe()
    _, run = toy_fit(tiny, recipe, every)
    finished = step - 1
    epoch_ends, saves = finished // 3 * 3, 0 if save_every == "null" else finished // int(save_every) * int(save_every)
    assert recipe.steps == 9 - max(epoch_ends, saves)
    assert fingerprint(run.dir) == reference(tiny, tmp_path, every)


@pytest.mark.parametrize("save_every", ["null", "3"])
def test_crash_in_validation(tiny, tmp_path, save_every):
    """With a save at the last step of the epoch, resuming goes straight to validation and reports it once."""
    every = f"base_training.save_every={save_every}"
    with pytest.raises(RuntimeError, match="crash"):
        toy_fit(tiny, ToyRecipe(scores=[RuntimeError("crash")]), every)
    _, run = toy_fit(tiny, ToyRecipe(), every)
    assert fingerprint(run.dir) == reference(tiny, tmp_path, every)


def test_networks_of_some_epochs_are_kept(tiny):
    recipe = ToyRecipe()
    _, run = toy_fit(tiny, recipe, "base_training.keep_every=2", "base_training.epochs=4", "base_training.eval_every=4")
    assert sorted(path.name for path in run.dir.glob("epoch_*")) == ["epoch_2.pth", "epoch_4.pth"]
    early, late = (checkpoint.load(run.dir / f"epoch_{epoch}.pth") for epoch in (2, 4))
    assert early["epoch"] == 2 and not early["metrics"] and late["metrics"]  # validated at the end alone
    for name, values in recipe.model.state_dict().items():
        assert torch.equal(late["model"][name], values)
    assert any(not torch.equal(early["model"][name], values) for name, values in late["model"].items())


def test_without_a_measure_the_best_model_is_the_last(tiny):
    """Falling scores: by the first the best epoch would be the first."""
    scores = [0.9, 0.5, 0.1]
    for latest, epoch in ((False, 1), (True, 3)):
        recipe = ToyRecipe(scores=list(scores))
        if latest:
            recipe.score = LATEST
        metrics, run = toy_fit(tiny, recipe, "resume=false")
        assert metrics["epoch"] == checkpoint.load(run.best)["epoch"] == epoch
        assert metrics["miou"] == scores[epoch - 1]


def test_crash_between_report_and_save(tiny, tmp_path, monkeypatch):
    """The validation of an epoch is on disk, its checkpoint is not: the report is made again, not twice."""
    save = checkpoint.save

    def failing(path, state, **options):
        if path.name == "last.pth" and state["progress"]["epoch"] == 2:
            raise RuntimeError("crash")
        save(path, state, **options)

    for every in ("null", "3"):
        output = f"output_dir={tmp_path}/{every}"
        monkeypatch.setattr(checkpoint, "save", failing)
        with pytest.raises(RuntimeError, match="crash"):
            toy_fit(tiny, ToyRecipe(), f"base_training.save_every={every}", output)
        monkeypatch.setattr(checkpoint, "save", save)
        _, run = toy_fit(tiny, ToyRecipe(), f"base_training.save_every={every}", output)
        assert fingerprint(run.dir) == reference(tiny, tmp_path / f"ref{every}", f"base_training.save_every={every}")


def test_a_line_cut_by_a_kill_is_dropped(tiny, tmp_path):
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(trouble=at_step(4, terminate)))
    with (tmp_path / "out" / "two" / "toy" / "history.jsonl").open("a") as file:
        file.write('{"step": 5, "ep')
    _, run = toy_fit(tiny, ToyRecipe())
    assert fingerprint(run.dir) == reference(tiny, tmp_path)


def test_history_has_every_step_and_validation_once(tiny):
    _, run = toy_fit(tiny, ToyRecipe(scores=[0.1, 0.3, 0.2]))
    lines = history(run)
    assert [(line["step"], line["epoch"]) for line in lines if "train" in line] == [
        *((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 3), (8, 3), (9, 3))
    ]
    validations = [line for line in lines if "val" in line]
    assert validations == [{"step": 3 * e, "epoch": e, "val": {"miou": s}} for e, s in ((1, 0.1), (2, 0.3), (3, 0.2))]
    assert all(line["train"]["loss"] == line["train"]["toy"] for line in lines if "train" in line)


def test_best_and_last(tiny):
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[0.1, 0.3, 0.3]))
    assert (
        metrics["epoch"] == 2 and metrics["miou"] == 0.3 and metrics["checkpoint"] == "best.pth"
    )  # the first of equals
    assert metrics["last"] == {"miou": 0.3, "other": 1}
    best, last = checkpoint.load(run.best), checkpoint.load(run.last)
    assert best["epoch"] == 2 and last["progress"]["epoch"] == 3 and last["progress"]["best_score"] == 0.3
    assert not torch.equal(best["model"]["0.weight"], last["model"]["0.weight"])
    assert last["recipe"] == {"note": "kept"} and last["config"]["seed"] == 7


def test_validation_every_so_many_epochs_and_at_the_end(tiny):
    _, run = toy_fit(tiny, ToyRecipe(), "base_training.eval_every=2")
    assert [line["epoch"] for line in history(run) if "val" in line] == [2, 3]


def test_undefined_score_still_leaves_a_best_model(tiny):
    """absent=skip without any such class in validation: the mean is None."""
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[None, None, None]))
    assert metrics["miou"] is None and metrics["epoch"] == 1 and run.best.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(tiny, tmp_path, value):
    before = {}

    def break_loss(recipe):
        before.update({k: v.clone() for k, v in recipe.model.state_dict().items()})
        before["file"] = (tmp_path / "out" / "two" / "toy" / "last.pth").read_bytes()
        recipe.factor = value

    recipe = ToyRecipe(trouble=at_step(5, break_loss))
    with pytest.raises(
        UserError, match=r"not finite at step 5 \(toy=(nan|inf)\); stopped before the update, .*last.pth"
    ):
        toy_fit(tiny, recipe)
    assert (tmp_path / "out" / "two" / "toy" / "last.pth").read_bytes() == before.pop("file")
    after = recipe.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(history(tmp_path / "out" / "two" / "toy")) == 3 + 1 + 1


def test_batch_larger_than_the_list(tiny):
    class Short(ToySource):
        steps_per_pass = 0

    recipe = ToyRecipe()
    recipe.sources = lambda epoch, run: {"base": ToySource(), "hard": Short()}
    with pytest.raises(UserError, match="batch_size=4 is larger than the 'hard' image list"):
        toy_fit(tiny, recipe)


def test_an_epoch_ends_with_its_shortest_source(tiny):
    class Longer(ToySource):
        steps_per_pass = 5

    recipe = ToyRecipe()
    recipe.sources = lambda epoch, run: {"toy": ToySource(), "longer": Longer()}
    toy_fit(tiny, recipe)
    assert recipe.steps == 9
    recipe = ToyRecipe()
    toy_fit(tiny, recipe, "resume=false", "base_training.iters_per_epoch=2")
    assert recipe.steps == 6


def test_going_on_from_a_file_elsewhere(tiny, tmp_path):
    """The best model before that point is not here: the best of what follows is taken, also when nothing follows."""
    _, run = toy_fit(tiny, ToyRecipe(scores=[0.9, 0.8, 0.7]))
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(scores=[0.9], trouble=at_step(4, terminate)), f"output_dir={tmp_path}/cut")
    path = tmp_path / "cut" / "two" / "toy" / "last.pth"
    metrics, other = toy_fit(tiny, ToyRecipe(scores=[0.5, 0.6]), f"output_dir={tmp_path}/b", f"resume={path}")
    assert metrics["miou"] == 0.6 and metrics["epoch"] == 3
    a, b = (checkpoint.load(r.last)["model"] for r in (run, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    metrics, _ = toy_fit(tiny, ToyRecipe(scores=[0.4]), f"output_dir={tmp_path}/c", f"resume={run.last}")
    assert metrics["miou"] == 0.4


def test_resuming_from_a_checkpoint_of_another_network(tiny, tmp_path):
    state = {"model": {"w": torch.ones(1)}, "optimizer": {}, "scaler": {}, "recipe": {}, "progress": {}, "random": []}
    checkpoint.save(tmp_path / "other.pth", state)
    with pytest.raises(UserError, match="other.pth: does not fit this run") as caught:
        toy_fit(tiny, ToyRecipe(), f"resume={tmp_path / 'other.pth'}")
    assert "\n" not in str(caught.value)
    torch.save({"format": 1, "model": {}}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="best.pth: does not fit this run"):
        toy_fit(tiny, ToyRecipe(), f"resume={tmp_path / 'best.pth'}")


def test_resuming_where_as_many_but_other_parameters_were_trained(tiny, tmp_path):
    """Two tensors per group either way; their momenta are of other shapes."""
    _, run = toy_fit(tiny, ToyRecipe())
    state = checkpoint.load(run.last)
    momenta = state["optimizer"]["state"]
    momenta[0], momenta[2] = momenta[2], momenta[0]  # [1, 3] and [3, 2]
    checkpoint.save(tmp_path / "other.pth", state)
    message = (
        r"other.pth: does not fit this run \(momentum_buffer of shape \(3, 2\) for a parameter of shape \(1, 3\): "
    )
    with pytest.raises(UserError, match=message + "other parts were trained"):
        toy_fit(tiny, ToyRecipe(), f"output_dir={tmp_path}/b", f"resume={tmp_path / 'other.pth'}")


def stop_in_step(monkeypatch, recipe_class, number: int) -> None:
    """SIGTERM arrives while step `number` (from 1) of the next training is computed."""
    step, calls = recipe_class.step, []

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == number:
            terminate()
        return step(self, *arguments)

    monkeypatch.setattr(recipe_class, "step", stopping)


@pytest.fixture(scope="module")
def whole(voc, pseudo, tmp_path_factory):
    """(configuration, {stage: command}, {stage: fingerprint}) of uninterrupted base and EUMS training."""
    from tests.conftest import write_tiny

    folder = tmp_path_factory.mktemp("whole")
    config = write_tiny(folder, voc)
    commands = {
        "base": (train_base.main, [str(config), *SMALL, "base_training.epochs=2"]),
        "eums": (
            finetune_novel.main,
            [str(config), *SMALL, "method=eums", f"pseudo_dir={pseudo}", f"split_dir={pseudo}"],
        ),
    }
    prints = {}
    for stage, (main, argv) in commands.items():
        assert guarded(main, argv) == 0
        prints[stage] = fingerprint(folder / "out" / "two" / stage)
    return folder / "out" / "two", commands, prints


@pytest.mark.parametrize("step", [2, 3])  # of 2 epochs of 2 steps
def test_base_training_resumes_to_the_last_bit(whole, tmp_path, monkeypatch, step):
    _, commands, prints = whole
    main, argv = commands["base"]
    argv = [*argv, f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        stop_in_step(patch, train_base.SupervisedRecipe, step)
        assert guarded(main, argv) == 75
    assert not (tmp_path / "two" / "base" / "metrics.json").exists()
    assert guarded(main, argv) == 0
    assert fingerprint(tmp_path / "two" / "base") == prints["base"]


@pytest.mark.parametrize("step", [2, 3])  # of 3 epochs of 2 steps; images are reassigned before step 3
def test_eums_resumes_to_the_last_bit(whole, tmp_path, monkeypatch, step):
    folder, commands, prints = whole
    main, argv = commands["eums"]
    argv = [*argv, f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        stop_in_step(patch, finetune_novel.EumsRecipe, step)
        assert guarded(main, argv) == 75
    assert (tmp_path / "two" / "eums" / "easy_split.txt").exists() == (step > 2)
    assert guarded(main, argv) == 0
    assert fingerprint(tmp_path / "two" / "eums") == prints["eums"]
    for name in ("easy_split.txt", "hard_split.txt"):
        assert (tmp_path / "two" / "eums" / name).read_text() == (folder / "eums" / name).read_text()


@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_a_batch_add_up_to_it(tiny, tmp_path, count):
    """The mean of the parts' losses is that of the batch, so are gradients; hooks run once per step."""
    models, calls = [], []
    for parts in (1, count):
        recipe = ToyRecipe()
        recipe.model[1].p = 0.0
        recipe.before_step = lambda: calls.append(1)
        _, run = toy_fit(tiny, recipe, f"base_training.accumulate={parts}", f"output_dir={tmp_path}/{parts}", *EIGHT)
        models.append(checkpoint.load(run.last)["model"])
        assert len(calls) == 9 and recipe.steps == 9 * parts
        calls.clear()
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-4, atol=1e-6)


def test_parts_that_do_not_fit_the_batch(tiny):
    for parts, message in (
        (3, "accumulate=3: batch_size=8 cannot be divided evenly"),
        (5, "less than 2 images for each"),
    ):
        with pytest.raises(UserError, match=message):
            toy_fit(tiny, ToyRecipe(), f"base_training.accumulate={parts}", *EIGHT)


def test_without_a_score_the_last_epoch_is_the_result(tiny):
    recipe = ToyRecipe(scores=[3.0, 2.0, 1.0])
    recipe.score = None
    metrics, run = toy_fit(tiny, recipe)
    assert metrics == {"miou": 1.0, "other": 1, "epoch": 3, "checkpoint": "last.pth"}
    assert run.last.exists() and not run.best.exists()
    assert [line["val"]["miou"] for line in history(run) if "val" in line] == [3.0, 2.0, 1.0]


def test_figures_without_gradient_are_reported_and_not_minimised(tiny, tmp_path):
    recipe, plain = ToyRecipe(), ToyRecipe.step
    recipe.step = lambda batch, epoch: {**plain(recipe, batch, epoch), "accuracy": torch.tensor(7.0)}
    _, run = toy_fit(tiny, recipe, f"output_dir={tmp_path}/with")
    trained = [line["train"] for line in history(run) if "train" in line]
    assert all(line["accuracy"] == 7 and line["loss"] == line["toy"] for line in trained)
    _, without = toy_fit(tiny, ToyRecipe())
    models = [checkpoint.load(folder)["model"] for folder in (run.last, without.last)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
