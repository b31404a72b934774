"""Floating-point operations of a training step: by hand for a convolution, and of a training script."""

import torch
from torch import nn

from benchmarks import flops
from utils.recipe import Recipe
from utils.step import train_step


class Pointwise(nn.Module):
    """A 1x1 convolution of three channels to four."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, image):
        return self.conv(image.float())


class PointwiseRecipe(Recipe):
    score = None

    def parameter_groups(self):
        return [{"name": "all", "params": list(self.model.parameters()), "lr": 1.0}]

    def step(self, batch, epoch):
        return {"sum": self.model(batch["x"]["image"]).sum()}


def pointwise() -> tuple[PointwiseRecipe, dict, torch.optim.Optimizer]:
    recipe = PointwiseRecipe(Pointwise(), None)
    batch = {"x": {"image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "label": torch.zeros(5, 8, 8)}}
    return recipe, batch, torch.optim.SGD(recipe.model.parameters(), 0.1)


def test_operations_by_hand():
    """2 x 12 operations a pixel forward, and as many for the gradient of the weights; none for that of the image."""
    step = pointwise()
    assert flops.count(lambda: train_step(*step)) == 2 * (5 * 64 * 2 * 12)


def test_the_first_step_of_each_recipe_is_counted():
    counted, step = flops.CountedSteps(), pointwise()
    assert [set(counted(*step)) for _ in range(2)] == [{"sum", "loss"}] * 2
    assert counted.rows == {"PointwiseRecipe": (5, 2 * 5 * 64 * 2 * 12)}
    assert counted.table()[1] == ["PointwiseRecipe", "5", "0.0", "0.0"]


def test_operations_of_a_training_script(tiny, capsys):
    status = flops.main(["train_base.py", str(tiny), "base_training.batch_size=2"])
    said = capsys.readouterr()
    assert status == 0, said.err
    last = said.out.strip().splitlines()[-1].split()
    assert last[:2] == ["SupervisedRecipe", "2"] and float(last[2]) > 0


def test_an_unknown_script_is_refused(capsys):
    assert flops.guarded(flops.main, ["train_none.py"]) == 2
    assert capsys.readouterr().err == "error: train_none.py: no such training script; e.g. train_base.py\n"
