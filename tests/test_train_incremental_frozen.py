"""Which tensors train under the switches of SSUL's ablation, on the network whose reference counts are known."""

import itertools

import pytest
import torch

from models.incremental.network import IncrementalNet
from tests.networks import incremental_network
from train_incremental import SsulRecipe, Step
from utils.config.incremental import IncrementalConfig
from utils.step import build_optimizer, train_step

# step 1 of VOC 15-1: unknown, background, fifteen classes, and the new one; reference of the official code
TRAINED = {
    *("classifier.head.0.0.weight", "classifier.head.0.3.weight", "classifier.head.0.3.bias"),
    *("classifier.head.1.0.weight", "classifier.head.1.3.weight", "classifier.head.1.3.bias"),
    *("classifier.head.3.0.weight", "classifier.head.3.3.weight", "classifier.head.3.3.bias"),
}
AFFINE = {f"classifier.head.{head}.1.{name}" for head in (0, 1, 3) for name in ("weight", "bias")}


def network(heads: list[int], backbone: str = "mobilenet_v2", width: int = 256) -> IncrementalNet:
    torch.manual_seed(0)
    return incremental_network(heads, backbone=backbone, head_channels=width, atrous_rates=(6, 12, 18))


def settings(freeze: bool, freeze_batchnorm: bool) -> IncrementalConfig:
    options = {"freeze": freeze, "freeze_batchnorm": freeze_batchnorm}
    return IncrementalConfig.model_validate({"ssul": options, "training": {"lr": 0.1, "first_lr": 0.1}})


def recipe_of_step(number: int, freeze: bool, freeze_batchnorm: bool, **made) -> SsulRecipe:
    step = Step(number, 15 + number if number else 0, 16 + number)
    return SsulRecipe(network([1, 1, 15, *[1] * number], **made), settings(freeze, freeze_batchnorm), step)


def with_gradient(recipe: SsulRecipe) -> set[str]:
    return {name for name, parameter in recipe.model.named_parameters() if parameter.requires_grad}


def batchnorms(recipe: SsulRecipe) -> list[torch.nn.Module]:
    return [module for module in recipe.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def optimised(recipe: SsulRecipe) -> list[torch.nn.Parameter]:
    return [parameter for group in recipe.parameter_groups() for parameter in group["params"]]


@pytest.mark.parametrize(
    ("freeze", "freeze_batchnorm", "count"),
    [(True, True, 9), (True, False, 15), (False, True, 69), (False, False, 191)],
)
def test_tensors_that_train_in_step_1(freeze, freeze_batchnorm, count):
    """MobileNetV2: 51 convolutions, ASPP's 6, 3 tensors of each of 4 heads; 61 BatchNorms with two tensors each."""
    recipe = recipe_of_step(1, freeze, freeze_batchnorm)
    assert len(with_gradient(recipe)) == count == len(optimised(recipe))
    assert all(parameter.requires_grad for parameter in optimised(recipe))
    if freeze:
        assert with_gradient(recipe) == (TRAINED if freeze_batchnorm else TRAINED | AFFINE)
    recipe.model.train()
    norms = batchnorms(recipe)
    assert len(norms) == 61 and {norm.training for norm in norms} == {not freeze_batchnorm}


@pytest.mark.parametrize(("number", "heads"), [(0, 3), (2, 5)])
def test_tensors_that_train_in_other_steps(number, heads):
    """Step 0 trains everything, whatever the switches; each later head adds five tensors, two of its BatchNorm."""
    for freeze, freeze_batchnorm in itertools.product((True, False), repeat=2):
        recipe = recipe_of_step(number, freeze, freeze_batchnorm)
        everything = 51 + 6 + 2 * (51 + 6) + 5 * heads
        later = {(True, True): 9, (True, False): 15, (False, True): 51 + 6 + 3 * heads, (False, False): everything}
        expected = everything if number == 0 else later[freeze, freeze_batchnorm]
        assert len(with_gradient(recipe)) == len(optimised(recipe)) == expected
        recipe.model.train()
        assert all(norm.training != (number > 0 and freeze_batchnorm) for norm in batchnorms(recipe))


@pytest.mark.parametrize(("freeze", "freeze_batchnorm"), list(itertools.product((True, False), repeat=2)))
def test_what_an_optimiser_step_changes(freeze, freeze_batchnorm):
    """Trained tensors and, where BatchNorm is not frozen, the running statistics of the whole network."""
    recipe = recipe_of_step(1, freeze, freeze_batchnorm, backbone="resnet18", width=8)
    before = {key: value.clone() for key, value in recipe.model.state_dict().items()}
    recipe.model.train()
    g = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randint(0, 256, (4, 3, 33, 33), generator=g, dtype=torch.uint8),
        "label": torch.randint(0, 2, (4, 33, 33), generator=g) * 16,
        "saliency": torch.randint(0, 2, (4, 33, 33), generator=g),
    }
    train_step(recipe, {"new": batch}, build_optimizer(recipe.parameter_groups(), recipe.settings.training))
    changed = {key for key, value in recipe.model.state_dict().items() if not torch.equal(before[key], value)}
    statistics = {key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed - statistics == with_gradient(recipe)
    assert changed & statistics == (set() if freeze_batchnorm else statistics)
