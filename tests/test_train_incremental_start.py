"""How steps of the baselines begin: MiB's new output, PLOP's thresholds, step 0."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.test_train_incremental import batch_of, load, opened
from train_incremental import StepRecipe, build_recipe
from utils.run import start_run


@pytest.fixture
def config(task_config):
    return task_config


def test_mib_starts_with_the_old_probabilities(config):
    """Background's probability is shared with the new class: their sum and all other classes are as before."""
    steps, previous = opened(config, "mib", 1)
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        recipe = build_recipe(steps.cfg, steps, 1, previous, opened_run)
        image = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            old = recipe.old(image).logits.softmax(1)
            new = recipe.model.eval()(image).logits.softmax(1)
        torch.testing.assert_close(new[:, 0] + new[:, 3], old[:, 0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(new[:, 1:3], old[:, 1:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(new[:, 3], new[:, 0])


@pytest.mark.parametrize("median", ["official", "exact"])
def test_plop_measures_its_thresholds_before_the_first_epoch(config, median):
    steps, previous = opened(config, "plop", 1, f"plop.median={median}")
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        recipe = build_recipe(steps.cfg, steps, 1, previous, opened_run)
        recipe.sources(0, opened_run)
        assert recipe.thresholds.shape == (3,) and (recipe.thresholds >= 0.001).all()
        losses = recipe.step({"new": batch_of(steps, 1)}, 0)
        assert losses.keys() == {"ce", "pod"} and all(loss.isfinite() for loss in losses.values())


def test_step_0_is_plain_cross_entropy(config):
    steps = load(config, "method=plop")
    with start_run(steps.cfg, "check", (), {}) as opened_run:
        recipe = build_recipe(steps.cfg, steps, 0, None, opened_run)
        batch = batch_of(steps, 0)
        plain = copy.deepcopy(recipe.model).train()
        recipe.model.train()
        found = recipe.step({"new": batch}, 0)
        logits = plain(plain.normalize(batch["image"])).logits
        expected = F.cross_entropy(logits, batch["label"].long(), ignore_index=255)
        assert found.keys() == {"ce"} and found["ce"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert isinstance(recipe, StepRecipe)
