"""One optimiser step without data on disk, run folder or launch."""

import copy
import gzip
import json
from pathlib import Path

import pytest
import torch

from tests.utils.toy import ToyRecipe
from utils.config.common import Training
from utils.config.zeroshot import SeenTraining
from utils.step import NonFiniteLoss, _to_device, build_optimizer, set_learning_rate, train_step


def toy(**settings) -> tuple[ToyRecipe, torch.optim.Optimizer]:
    recipe = ToyRecipe()
    recipe.settings = Training(lr=0.1, backbone_lr_factor=1.0, **settings)
    recipe.model[1].p = 0.0
    return recipe, build_optimizer(recipe.parameter_groups(), recipe.settings)


def batch(images: int = 4) -> dict:
    draw = torch.Generator().manual_seed(1)
    return {"toy": {"x": torch.randn(images, 2, generator=draw), "y": torch.randn(images, generator=draw)}}


def parameters(recipe) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in recipe.model.parameters()])


def test_a_step_is_the_plain_update():
    recipe, optimizer = toy(momentum=0.0, weight_decay=0.0)
    plain = copy.deepcopy(recipe.model)
    losses = train_step(recipe, batch(), optimizer)
    toy_batch = batch()["toy"]
    loss = (plain(toy_batch["x"])[:, 0] - toy_batch["y"]).square().mean()
    loss.backward()
    assert losses["loss"].item() == losses["toy"].item() == pytest.approx(loss.item())
    assert not losses["loss"].requires_grad
    for ours, theirs in zip(recipe.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.1 * theirs.grad)


def test_parts_of_a_batch_give_its_gradient():
    (whole, one), (parts, two) = toy(), toy()
    train_step(whole, batch(8), one)
    losses = train_step(parts, batch(8), two, parts=4)
    torch.testing.assert_close(parameters(parts), parameters(whole))
    assert parts.steps == 4 and losses.keys() == {"toy", "loss"}


def test_what_a_recipe_reads_as_values_stays_on_the_host():
    fields = {"image": torch.zeros(1), "present": torch.zeros(1), "names": ["a"]}
    moved = _to_device(fields, torch.device("meta"), frozenset({"present"}))
    assert moved["image"].is_meta and moved["present"].device.type == "cpu" and moved["names"] == ["a"]


def test_clipping_limits_the_norm_of_all_gradients_together():
    recipe, optimizer = toy(momentum=0.0, weight_decay=0.0)
    before = parameters(recipe)
    train_step(recipe, batch(), optimizer, clip_norm=0.01)
    assert (parameters(recipe) - before).norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_changes_no_weight():
    recipe, optimizer = toy()
    before, recipe.factor = parameters(recipe), float("nan")
    with pytest.raises(NonFiniteLoss, match="toy=nan"):
        train_step(recipe, batch(), optimizer)
    assert torch.equal(parameters(recipe), before)


def test_a_loss_that_another_optimizer_goes_by_is_watched_too(monkeypatch):
    """As the generator's, which is only reported."""
    recipe, optimizer = toy()
    before, step = parameters(recipe), recipe.step
    monkeypatch.setattr(recipe, "step", lambda *given: {**step(*given), "mmd": torch.tensor(float("nan"))})
    with pytest.raises(NonFiniteLoss, match="mmd=nan"):
        train_step(recipe, batch(), optimizer)
    assert torch.equal(parameters(recipe), before)


def test_groups_keep_their_own_weight_decay():
    recipe, _ = toy(weight_decay=0.5)
    groups = recipe.parameter_groups()
    groups[1]["weight_decay"] = 0.0
    optimizer = build_optimizer(groups, recipe.settings)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert set_learning_rate(optimizer, recipe.settings, epoch=16, step=0, total=1) == pytest.approx(0.01)


def test_the_rate_of_poly_to_zero_is_that_of_the_official_zero_shot_code():
    """Rows of [epoch, iteration, backbone rate, head rate], the last ones below the floor of poly_steps."""
    fixture = Path(__file__).parents[1] / "fixtures/zeroshot/keys.json.gz"
    for name, rows in json.loads(gzip.decompress(fixture.read_bytes()))["lr_schedule"].items():
        epochs, length = map(int, name.split("_")[1:])
        settings = SeenTraining(epochs=epochs)
        for epoch, iteration, backbone, head in rows:
            optimizer = build_optimizer(
                [
                    {"name": "decoder", "params": [torch.zeros(1)], "lr": settings.lr},
                    {"name": "backbone", "params": [torch.zeros(1)], "lr": settings.lr * settings.backbone_lr_factor},
                ],
                settings,
            )
            set_learning_rate(optimizer, settings, epoch, epoch * length + iteration, epochs * length)
            found = [group["lr"] for group in optimizer.param_groups]
            assert found == pytest.approx([head, backbone], rel=1e-9)
