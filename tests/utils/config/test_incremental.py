from pathlib import Path

import pytest

from utils.config.incremental import IncrementalConfig, StepTraining
from utils.config.keys import first_difference
from utils.config.reader import load_config

CONFIGS = Path(__file__).parents[3] / "configs" / "incremental"


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "length", "every"),
    [(9568, 50, 32, 299, 149), (487, 50, 32, 15, 100), (20, 50, 32, 1, 100)],
)
def test_validation_of_the_official_code(images, epochs, batch, length, every):
    settings = StepTraining(epochs=epochs, batch_size=batch)
    made = settings.of_step(0, images, last_only=False)
    assert (made.iters_per_epoch, made.eval_steps) == (length, every)
    assert settings.of_step(0, images, last_only=True).eval_steps == epochs * length


@pytest.mark.parametrize(
    ("given", "first", "later"),
    [
        ({}, 50, 50),
        ({"epochs": 30}, 30, 30),
        ({"epochs": 10, "first_epochs": 30}, 30, 10),
        ({"first_epochs": 7}, 7, 50),
    ],
)
def test_epochs_of_step_0_and_of_later_ones(given, first, later):
    """PLOP on 10-1: 30, then 10. The iterations of a step follow, and with them rates and validation."""
    settings = StepTraining(**given, batch_size=10)
    made = [settings.of_step(step, 20, last_only=True) for step in range(3)]
    assert [step.epochs for step in made] == [first, later, later]
    assert [step.eval_steps for step in made] == [2 * first, 2 * later, 2 * later]


@pytest.mark.parametrize(
    ("now", "before", "step_0", "later"),
    [
        ({"epochs": 10, "first_epochs": 30}, {"epochs": 30}, None, "training.epochs: 30 there, 10 now"),
        ({"epochs": 30}, {"epochs": 30, "first_epochs": 30}, None, None),
        ({"epochs": 3}, {"epochs": 3}, None, None),  # a folder from before the key
        ({"epochs": 4}, {"epochs": 3}, "training.first_epochs: 3 there, 4 now", "training.epochs: 3 there, 4 now"),
        ({}, {"epochs": 50, "gone": 1}, *["training.gone: 1 there, None now"] * 2),
    ],
)
def test_what_makes_steps_stale(now, before, step_0, later):
    cfg, reads = IncrementalConfig.model_validate({"training": now}), ("training",)
    found = first_difference(cfg, {"training": before}, reads, frozenset(["later steps"]))
    assert found == step_0
    assert first_difference(cfg, {"training": before}, reads) == later


def test_the_former_name_of_a_schedule_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'poly_epochs', 'poly_steps', 'poly_to_zero' or 'warm_poly_steps'"):
        StepTraining(schedule="poly")


@pytest.mark.parametrize(
    ("name", "epochs", "pod", "pod_logits"),
    [("voc_baselines", 30, 0.01, 0.0005), ("ade_baselines", 60, 0.001, 0.00001)],
)
def test_published_settings_of_mib_and_plop(name, epochs, pod, pod_logits):
    cfg = load_config([str(CONFIGS / f"{name}.yaml"), "method=plop"], "", "train_incremental.py", ("ssul",))
    training = cfg.training
    assert (training.first_epochs, training.epochs, training.batch_size) == (epochs, epochs, 24)
    assert (training.first_lr, training.lr, training.schedule) == (0.01, 0.001, "poly_steps")
    assert (training.first_backbone_lr_factor, training.backbone_lr_factor) == (1, 1)
    assert (cfg.plop.pod, cfg.plop.pod_logits, cfg.plop.median) == (pod, pod_logits, "official")
    assert (cfg.model.dropout, cfg.data.image_size) == (0, 512)
    assert (cfg.evaluation.select, cfg.evaluation.absent, cfg.evaluation.later) == ("last", "skip", "background")
