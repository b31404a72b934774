"""The training loop: learning rates, and when it validates."""

import pytest
import torch

from tests.utils.toy import ToyRecipe, at_step, history, terminate, toy_fit
from utils import loop
from utils.config.reader import load_config
from utils.errors import Interrupted
from utils.step import build_optimizer


@pytest.mark.parametrize(
    "options, factors",
    [
        ("milestones: [0, 2]", [1, 0.1, 0.1, 0.01]),
        ("milestones: [1], lr_decay: 0.5", [1, 1, 0.5, 0.5]),
        ("schedule: poly_epochs", [1, 0.75**0.9, 0.5**0.9, 0.25**0.9]),
    ],
)
def test_learning_rate_of_each_epoch_and_group(tiny, monkeypatch, options, factors):
    rates, update = [], loop.train_step

    def spy(recipe, batch, optimizer, *rest, **options):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        return update(recipe, batch, optimizer, *rest, **options)

    monkeypatch.setattr(loop, "train_step", spy)
    options = (
        f"base_training={{epochs: 4, lr: 0.2, backbone_lr_factor: 0.05, iters_per_epoch: 3, log_every: 1, {options}}}"
    )
    _, run = toy_fit(tiny, ToyRecipe(), options)
    expected = [0.2 * factor for factor in factors for _ in range(3)]
    assert [rate["decoder"] for rate in rates] == pytest.approx(expected)
    assert [rate["backbone"] for rate in rates] == pytest.approx([0.05 * rate for rate in expected])
    assert [line["lr"] for line in history(run) if "train" in line] == pytest.approx(expected)


def test_learning_rate_after_resuming(tiny, monkeypatch):
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(trouble=at_step(4, terminate)))
    _, run = toy_fit(tiny, ToyRecipe())
    assert [line["lr"] for line in history(run) if "train" in line] == pytest.approx([0.1] * 3 + [0.01] * 6)


def test_rates_per_step(tiny, tmp_path):
    """Nine steps of 0.1 (1 - k / 9)^0.9, also when stopped in between."""
    options = ("base_training.schedule=poly_steps", f"output_dir={tmp_path}")
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(trouble=at_step(5, terminate)), *options)
    _, run = toy_fit(tiny, ToyRecipe(), *options)
    rates = [line["lr"] for line in history(run) if "train" in line]
    assert rates == pytest.approx([0.1 * (1 - k / 9) ** 0.9 for k in range(9)])


def test_validation_every_so_many_steps(tiny):
    """Nine steps, validated after 4 and 8, the best of them kept; none at the ends of epochs."""
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[0.5, 0.25]), "base_training.eval_steps=4")
    assert [line["step"] for line in history(run) if "val" in line] == [4, 8]
    assert metrics["miou"] == 0.5 and metrics["last"]["miou"] == 0.25


def test_too_short_for_a_validation_still_gives_a_model(tiny):
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[0.5]), "base_training.eval_steps=100")
    assert [line["step"] for line in history(run) if "val" in line] == [9] and run.best.exists()
    assert metrics["miou"] == 0.5


def test_sgd_and_adamw_take_their_options(tiny):
    settings = load_config([str(tiny), "base_training={momentum: 0.8, weight_decay: 0.01}"], "").base_training
    recipe = ToyRecipe()
    recipe.settings = settings
    sgd = build_optimizer(recipe.parameter_groups(), settings)
    assert [(g["momentum"], g["weight_decay"], len(g["params"])) for g in sgd.param_groups] == [(0.8, 0.01, 2)] * 2
    other = settings.model_copy(update={"optimizer": "adamw"})
    adamw = build_optimizer(recipe.parameter_groups(), other)
    assert isinstance(adamw, torch.optim.AdamW) and adamw.param_groups[1]["weight_decay"] == 0.01


def test_a_stop_does_not_lose_a_validation(tiny, tmp_path):
    """Stopped in step 4, which is validated, and resumed: the best model is that of step 4 as without the stop."""
    options = ("base_training.eval_steps=4", f"output_dir={tmp_path}")
    with pytest.raises(Interrupted):
        toy_fit(tiny, ToyRecipe(scores=[0.5], trouble=at_step(4, terminate)), *options)
    metrics, run = toy_fit(tiny, ToyRecipe(scores=[0.25]), *options)
    assert [line["step"] for line in history(run) if "val" in line] == [4, 8]
    assert metrics["miou"] == 0.5
