"""Two optimiser steps of each method against the formulas of the paper, written out plainly."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from finetune_novel import BasicRecipe, EumsRecipe
from models.discovery.teacher_student import TeacherStudent
from models.segmentation import SegmentationNet
from tests.networks import discovery_network
from train_base import SupervisedRecipe
from utils.config.discovery import Eums, FineTuning
from utils.step import build_optimizer, set_learning_rate, train_step

KNOWN, OUTPUTS, SIZE = 3, 6, 33


def draw(seed: int, classes: list[int], **images: int) -> dict[str, torch.Tensor]:
    """A source of four images: uint8 pictures by name, and a label of blocks with two ignored columns."""
    g = torch.Generator().manual_seed(seed)
    blocks = torch.tensor(classes)[torch.randint(len(classes), (4, 3, 3), generator=g)]
    label = blocks.repeat_interleave(11, 1).repeat_interleave(11, 2)
    label[:, :, 15:17] = 255
    made = {name: torch.randint(0, 256, (4, 3, SIZE, SIZE), generator=g, dtype=torch.uint8) for name in images}
    return {**made, "label": label, "pseudo": label}


def plain_optimizer(network) -> torch.optim.SGD:
    groups = [
        {"params": [*network.decoder.parameters(), *network.classifier.parameters()], "lr": 0.1},
        {"params": [*network.backbone.layer3.parameters(), *network.backbone.layer4.parameters()], "lr": 0.001},
    ]
    return torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)


def ce(network, images, label):
    return F.cross_entropy(network(network.normalize(images)).logits, label.long(), ignore_index=255)


def network(outputs: int) -> SegmentationNet:
    torch.manual_seed(0)
    return discovery_network(outputs, atrous_rates=(1, 2, 3), dropout=0.0)


def ours(recipe, batches, epoch):
    """Two steps with nothing but tensors: no files, no run."""
    optimizer = build_optimizer(recipe.parameter_groups(), recipe.settings)
    set_learning_rate(optimizer, recipe.settings, epoch, 0, 100)
    recipe.model.train()
    return [train_step(recipe, batch, optimizer, epoch=epoch) for batch in batches]


def same_parameters(one, other) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=partial("{}: {}".format, name))


def test_base_training():
    recipe = SupervisedRecipe(network(KNOWN), FineTuning(lr=0.1))
    plain = copy.deepcopy(recipe.model).train()
    batches = [{"base": draw(step, [0, 1, 2], image=0)} for step in range(2)]
    losses = ours(recipe, batches, 0)
    optimizer = plain_optimizer(plain)
    for batch, found in zip(batches, losses, strict=True):
        loss = ce(plain, batch["base"]["image"], batch["base"]["label"])
        assert found["base"].item() == pytest.approx(loss.item(), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    same_parameters(recipe.model, plain)


def test_basic_framework():
    recipe = BasicRecipe(network(OUTPUTS), FineTuning(lr=0.1))
    plain = copy.deepcopy(recipe.model).train()
    batches = [
        {"base": draw(step, [0, 1, 2], image=0), "novel": draw(10 + step, [0, 1, 3, 5], image=0)} for step in range(2)
    ]
    losses = ours(recipe, batches, 0)
    optimizer = plain_optimizer(plain)
    for batch, found in zip(batches, losses, strict=True):
        base = ce(plain, batch["base"]["image"], batch["base"]["label"])
        novel = ce(plain, batch["novel"]["image"], batch["novel"]["pseudo"])
        assert found["base"].item() == pytest.approx(base.item() / 2, rel=1e-5)
        assert found["novel"].item() == pytest.approx(novel.item() / 2, rel=1e-5)
        optimizer.zero_grad()
        ((base + novel) / 2).backward()
        optimizer.step()
    same_parameters(recipe.model, plain)


@pytest.mark.parametrize("threshold, epoch", [(0.0, 3), (0.25, 6), (0.99, 6)])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_eums(threshold, epoch, mode):
    """Order of the official code: student on base, clean and strong views; moving average; teacher on the weak view."""
    settings = Eums(lr=0.1, threshold=threshold, teacher_mode=mode)
    recipe = EumsRecipe(TeacherStudent(network(OUTPUTS), settings.teacher_momentum), settings)
    plain = copy.deepcopy(recipe.model).train()
    batches = [
        {
            "base": draw(step, [0, 1, 2], image=0),
            "easy": draw(10 + step, [0, 1, 3, 5], image=0),
            "hard": draw(20 + step, [0], image=0, strong=0),
        }
        for step in range(2)
    ]
    losses = ours(recipe, batches, epoch)
    q, k = plain.student, plain.teacher
    optimizer = plain_optimizer(q)
    weight = math.exp(-5 * (1 - min(epoch, 5) / 5) ** 2)
    for batch, found in zip(batches, losses, strict=True):
        base = ce(q, batch["base"]["image"], batch["base"]["label"])
        easy = ce(q, batch["easy"]["image"], batch["easy"]["pseudo"])
        strong = q(q.normalize(batch["hard"]["strong"])).logits
        with torch.no_grad():
            for mean, new in zip(k.parameters(), q.parameters(), strict=True):
                mean.mul_(0.99).add_(new, alpha=0.01)
            k.train(mode == "train")
            confidence, target = k(k.normalize(batch["hard"]["image"])).logits.softmax(1).max(1)
            target[confidence < threshold] = 255
        masked = bool((target == 255).all())  # the official loss is NaN here, and its gradient zero
        consistency = torch.zeros(()) if masked else F.cross_entropy(strong, target, ignore_index=255)
        assert masked == (threshold == 0.99)
        assert found["base"].item() == pytest.approx(base.item() / 2, rel=1e-5)
        assert found["easy"].item() == pytest.approx(easy.item() / 2, rel=1e-5)
        assert found["consistency"].item() == pytest.approx(weight * consistency.item(), rel=1e-4)
        optimizer.zero_grad()
        ((base + easy) / 2 + weight * consistency).backward()
        optimizer.step()
    same_parameters(recipe.model, plain)


def test_without_unclean_images():
    """eums.rampup_weight=0: no third source, no teacher, the other two terms as before."""
    recipe = EumsRecipe(TeacherStudent(network(OUTPUTS)), Eums(rampup_weight=0))
    batch = {"base": draw(0, [0, 1], image=0), "easy": draw(1, [0, 3], image=0)}
    losses = recipe.step(batch, 0)
    assert losses.keys() == {"base", "easy"} and all(loss > 0 for loss in losses.values())


def test_images_may_be_normalised_already():
    recipe = SupervisedRecipe(network(KNOWN).eval(), FineTuning())
    batch = draw(0, [0, 1, 2], image=0)
    plain = recipe.step({"base": batch}, 0)["base"]
    made = recipe.step({"base": {**batch, "image": recipe.model.normalize(batch["image"])}}, 0)["base"]
    assert torch.equal(plain, made)
