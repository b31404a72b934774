import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.incremental import (
    binary_cross_entropy,
    fold_new_classes,
    local_pod,
    old_class_entropy,
    pod_loss,
    strips,
    unbiased_cross_entropy,
    unbiased_distillation,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ssul"


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- SSUL


def test_bce_is_that_of_the_official_code():
    golden = np.load(FIXTURES / "bce.npz")
    logits = torch.tensor(golden["logits"], requires_grad=True)
    label = torch.tensor(golden["labels"])
    loss = binary_cross_entropy(logits, label)
    assert loss.item() == pytest.approx(float(golden["loss_mean"]), rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad, golden["grad_mean"], rtol=1e-5, atol=1e-9)
    valid = (label != 255).sum()
    assert loss.item() * valid.item() == pytest.approx(float(golden["loss_sum"]), rel=1e-6)


def test_bce_against_one_hot_planes():
    logits, label = draw(0, 2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    label[0, 0] = 255
    target = F.one_hot(torch.where(label == 255, 0, label), 5).permute(0, 3, 1, 2).double()
    per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    expected = per_pixel[label != 255].mean()
    assert binary_cross_entropy(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)


def test_bce_of_some_channels_has_the_gradients_of_all():
    """Only channels 0, 1 and 4 train: the same gradients, and a value that lacks what the others add."""
    logits, label = draw(2, 2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    label[1, 2] = 255
    whole = logits.clone().requires_grad_()
    binary_cross_entropy(whole, label).backward()
    part = logits[:, [0, 1, 4]].clone().requires_grad_()
    binary_cross_entropy(part, label, channels=[0, 1, 4]).backward()
    torch.testing.assert_close(part.grad, whole.grad[:, [0, 1, 4]], rtol=1e-6, atol=1e-9)


def test_bce_without_labelled_pixels_is_zero():
    logits = draw(0, 1, 3, 2, 2).requires_grad_()
    loss = binary_cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_bce_by_hand():
    """Two classes, logits 0 and ln 3, class 1: ln 2 + ln 4 - ln 3."""
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    expected = math.log(2) + math.log(4) - math.log(3)
    assert binary_cross_entropy(logits, torch.tensor([[[1]]])).item() == pytest.approx(expected, rel=1e-6)


# ---- MiB


def test_unbiased_cross_entropy_by_hand():
    """Probabilities 0.1, 0.2, 0.3, 0.4 with two old classes: background is 0.3; an ignored pixel counts with 0."""
    prob = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = prob.log().view(1, 4, 1, 1).expand(1, 4, 1, 4)
    label = torch.tensor([[[0, 1, 2, 255]]])
    expected = -(math.log(0.3) + math.log(0.3) + math.log(0.3)) / 4
    assert unbiased_cross_entropy(logits, label, num_old=2).item() == pytest.approx(expected, rel=1e-5)
    assert unbiased_cross_entropy(logits[..., :1], torch.tensor([[[3]]]), 2).item() == pytest.approx(
        -math.log(0.4), rel=1e-5
    )


def test_unbiased_distillation_by_hand():
    """New network as above, old one 0.25 and 0.75: its background matches 0.1 + 0.3 + 0.4, its class 0.2."""
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().view(1, 4, 1, 1)
    old = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1)
    expected = -(0.25 * math.log(0.8) + 0.75 * math.log(0.2)) / 2
    assert unbiased_distillation(logits, old).item() == pytest.approx(expected, rel=1e-5)


def test_without_new_classes_unbiased_is_plain():
    logits, old = draw(0, 2, 4, 3, 5), draw(1, 2, 4, 3, 5)
    plain = -(old.softmax(1) * logits.log_softmax(1)).mean(1).mean()
    assert unbiased_distillation(logits, old).item() == pytest.approx(plain.item(), rel=1e-6)
    label = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(logits, label)
    assert unbiased_cross_entropy(logits, label, num_old=1).item() == pytest.approx(expected.item(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_unbiased_losses_do_not_see_how_background_is_shared(seed, num_old, num_new):
    """Moving probability between background and the classes it may stand for changes nothing."""
    prob = draw(seed, 1, num_old + num_new, 2, 2).softmax(1)
    moved = prob.clone()
    old_part = prob[:, :num_old].sum(1)
    moved[:, :num_old] = (old_part / num_old)[:, None]
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    one, two = (unbiased_cross_entropy(p.log(), label, num_old).item() for p in (prob, moved))
    assert one == pytest.approx(two, rel=1e-5)


# ---- PLOP


def plain_pod(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The loop of the paper: every cell cut out on its own."""

    def embed(x):
        x, parts = x.square(), []
        for scale in (1, 2, 4):
            side = x.shape[-1] // scale
            for i in range(scale):
                for j in range(scale):
                    cell = x[..., i * side : (i + 1) * side, j * side : (j + 1) * side]
                    parts += [cell.mean(3).flatten(1), cell.mean(2).flatten(1)]
        return torch.cat(parts, 1)

    return (embed(old) - embed(new)).norm(dim=1).mean()


@pytest.mark.parametrize("side", [4, 8, 9, 13])
def test_local_pod_against_the_loop(side):
    old, new = draw(0, 2, 3, side, side), draw(1, 2, 3, side, side)
    assert local_pod(old, new).item() == pytest.approx(plain_pod(old, new).item(), rel=1e-5)
    assert strips(old, 4).shape[1] == 3 * 2 * (side // 4) * 16
    assert local_pod(old, old).item() == 0


def test_new_classes_fold_into_background():
    logits = torch.arange(1.0, 6).view(1, 5, 1, 1)  # two old classes besides background, two new ones
    assert fold_new_classes(logits, 3).flatten().tolist() == [1 + 4 + 5, 2, 3]


def test_pod_weights():
    """Seven classes, three of them new: sqrt(7 / 3); factors 0.01 and 0.0005 for the logits; mean over two layers."""
    old = [draw(0, 1, 2, 8, 8), draw(1, 1, 4, 8, 8)]
    new = [draw(2, 1, 2, 8, 8), draw(3, 1, 7, 8, 8)]
    layers = plain_pod(old[0], new[0]), plain_pod(old[1], fold_new_classes(new[1], 4))
    expected = math.sqrt(7 / 3) * (0.01 * layers[0] + 0.0005 * layers[1]) / 2
    assert pod_loss(old, new, 7, 3).item() == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_lies_in_the_range_of_the_official_code():
    """Four equal old classes of six: mean of -p ln p is ln 4 / 4, divided by ln 4 and ln 6."""
    assert old_class_entropy(torch.zeros(1, 4, 1, 1), 6).item() == pytest.approx(1 / (4 * math.log(6)), rel=1e-5)
    sure = torch.tensor([50.0, 0, 0, 0]).view(1, 4, 1, 1)
    assert old_class_entropy(sure, 6).item() == pytest.approx(0, abs=1e-6)
