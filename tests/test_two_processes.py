"""Two optimiser steps of every recipe by two processes equal the same steps by one, on half of the images each.

Networks are in evaluation mode: without SyncBatchNorm, which the CPU lacks, batch statistics would differ.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_novel import BasicRecipe, EumsRecipe
from models.discovery.teacher_student import TeacherStudent
from models.zeroshot.generators import DeviseNet
from tests.networks import discovery_network, incremental_network, zero_shot_network
from tests.processes import on_two_ranks
from tests.test_recipes import draw
from tests.test_train_weakshot import batch as weak_shot_batch
from tests.test_train_weakshot import config as weak_shot_config
from tests.test_train_weakshot import pairs
from tests.test_train_weakshot import recipe as weak_shot_recipe
from tests.test_train_zeroshot import build as zero_shot_recipe
from tests.test_train_zeroshot import config as zero_shot_config
from train_base import SeenRecipe, SupervisedRecipe
from train_incremental import MibRecipe, PlopRecipe, SharedTrunkSsulRecipe, SsulRecipe, Step, StepRecipe
from train_weakshot import MaskFormerRecipe, SimFormerRecipe, SingleImageRecipe
from train_zeroshot import DeviseRecipe, SelfTrainingRecipe, Zs3Recipe
from utils import dist
from utils.config.discovery import Eums, FineTuning
from utils.config.incremental import IncrementalConfig
from utils.recipe import Recipe
from utils.step import train_step

Case = tuple[Recipe, dict[str, dict]]


def discovery(kind: type[Recipe], **sources: dict) -> Case:
    torch.manual_seed(0)
    return kind(discovery_network(5), FineTuning()), sources


def eums() -> Case:
    torch.manual_seed(0)
    settings = Eums(teacher_mode="eval", rampup_length=0, rampup_weight=2.0, teacher_momentum=0.5)
    sources = {
        "base": draw(1, [0, 1, 2], image=1),
        "easy": draw(2, [0, 3, 4], image=1),
        "hard": draw(3, [0, 3, 4], image=1, strong=1),
    }
    return EumsRecipe(TeacherStudent(discovery_network(5), settings.teacher_momentum), settings), sources


def incremental(kind: type[StepRecipe], **options) -> Case:
    """Step 1, which adds class 3 to background and classes 1 and 2."""
    torch.manual_seed(0)
    ssul = issubclass(kind, SsulRecipe)
    model = incremental_network([1, 1, 2] if ssul else [3], linear=not ssul, dropout=0.0)
    kept = kind.keep(model)
    old = None if kept is None else copy.deepcopy(kept).eval().requires_grad_(False)
    settings = IncrementalConfig.model_validate({"ssul": options})
    model.classifier.add(1)
    kind.start_new_head(model, settings)
    recipe = kind(model, settings, Step(1, 3, 4), old)
    if isinstance(recipe, PlopRecipe):
        recipe.thresholds = torch.tensor([1.2, 1.0, 1.0])
    return recipe, {"new": {**draw(1, [0, 3], image=1), "saliency": draw(2, [0, 1])["label"]}}


class WithoutNoise(Zs3Recipe):
    """Noise and choice of cells do not depend on the process."""

    def noise(self, cells, chosen=None):
        rows = torch.arange(float(cells)) if chosen is None else chosen.float()
        return (rows[:, None] * torch.arange(1.0, 1.0 + self.settings.noise_dim)).sin()

    def choose(self, cells):
        return torch.arange(self.settings.samples) % cells


def zero_shot_images() -> dict[str, torch.Tensor]:
    images = draw(1, [0, 1, 3, 5], image=1)
    return images | {"label": images["label"].to(torch.uint8)}


def generator(graph: bool) -> Case:
    recipe = zero_shot_recipe(zero_shot_config(zs3={"pace": "batch"}), graph=graph, kind=WithoutNoise)
    recipe.model.network.__class__ = recipe.model.network.__class__.__mro__[1]  # features of images, not given ones
    images = zero_shot_images()
    images["label"][3, 11:22] = 4  # the last image holds an unseen class: process 1 has one generator loss less
    return recipe, {"all": images}


def zero_shot(kind: type[Recipe], source: str) -> Case:
    torch.manual_seed(0)
    network = zero_shot_network(6, dropout=0.0)
    return kind(network, zero_shot_config().step1), {source: zero_shot_images()}


def word_vectors() -> Case:
    torch.manual_seed(0)
    model = DeviseNet(zero_shot_network(5, dropout=0.0), torch.randn(6, 5))
    return DeviseRecipe(model, zero_shot_config().step1), {"seen": zero_shot_images()}


def weak_shot(kind: type[MaskFormerRecipe]) -> Case:
    recipe = weak_shot_recipe(weak_shot_config(), kind)
    recipe.model.eval()
    images = weak_shot_batch()
    return recipe, {"pairs": pairs(images)} if kind is SimFormerRecipe else {"images": images}


BASE, NOVEL = draw(1, [0, 1, 2], image=1), draw(2, [0, 3, 4], image=1)
CASES: dict[str, Callable[[], Case]] = {
    "base": lambda: discovery(SupervisedRecipe, base=BASE),
    "basic": lambda: discovery(BasicRecipe, base=BASE, novel=NOVEL),
    "eums": eums,
    "finetune": lambda: incremental(StepRecipe),
    "mib": lambda: incremental(MibRecipe),
    "plop": lambda: incremental(PlopRecipe),
    "ssul": lambda: incremental(SharedTrunkSsulRecipe),
    "ssul, nothing frozen": lambda: incremental(SsulRecipe, freeze=False),
    "step1": lambda: zero_shot(SeenRecipe, "seen"),
    "devise": word_vectors,
    "zs3": lambda: generator(graph=False),
    "zs3_gc": lambda: generator(graph=True),
    "zs5": lambda: zero_shot(SelfTrainingRecipe, "labels"),
    "single": lambda: weak_shot(SingleImageRecipe),
    "supervised": lambda: weak_shot(MaskFormerRecipe),
    "simformer": lambda: weak_shot(SimFormerRecipe),
}


def two_steps(case: str, parts: int = 1) -> dict[str, torch.Tensor]:
    """Model and state of the recipe after two steps of gradient descent on this process's share of the images."""
    recipe, sources = CASES[case]()
    recipe.model.eval()
    optimizer = torch.optim.SGD([p for group in recipe.parameter_groups() for p in group["params"]], lr=0.01)
    share = {
        source: {name: values[dist.rank() :: dist.world_size()] for name, values in fields.items()}
        for source, fields in sources.items()
    }
    for _ in range(2):
        train_step(recipe, share, optimizer, parts=parts)
    return recipe.model.state_dict() | {name: value for name, value in recipe.state().items() if torch.is_tensor(value)}


def by_two(case: str, file: Path, parts: int) -> None:
    torch.set_num_threads(1)
    dist.init(torch.device("cpu"))
    state = two_steps(case, parts)
    sums = dist.gather({name: value.double().sum().item() for name, value in state.items()})
    assert sums[0] == sums[1], "the processes have different weights"
    if dist.is_main():
        torch.save(state, file)
    dist.shutdown()


@pytest.mark.parametrize(("case", "parts"), [*((case, 1) for case in CASES), ("basic", 2), ("ssul", 2)])
def test_two_processes_equal_one(tmp_path, case, parts):
    start, one = CASES[case]()[0].model.state_dict(), two_steps(case, parts)
    on_two_ranks(lambda: by_two(case, tmp_path / "both.pth", parts))
    both = torch.load(tmp_path / "both.pth", weights_only=True)
    moved = {name: (one[name] - value).abs().max().item() for name, value in start.items()}
    assert sum(far > 1e-5 for far in moved.values()) > 2
    assert all(one[name].equal(both[name]) for name in one.keys() - moved.keys())  # SimNet's count of pairs
    for name, far in moved.items():
        assert (both[name] - one[name]).abs().max().item() <= 2e-3 * far + 1e-6, name
