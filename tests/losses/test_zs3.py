"""Losses of ZS3Net against the official program, plain loops, and values worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.zs3 import (
    class_weights,
    cosine_loss,
    keep_most_certain,
    label_weight,
    mmd,
    mmd_plain,
    weighted_cross_entropy,
    weighted_cross_entropy_plain,
)
from tests.losses.agreement import assert_agree

FIXTURES = Path(__file__).parents[1] / "fixtures/zeroshot"
SETS = [(128, 128, 256, 1.0), (5, 5, 4, 1.0), (128, 128, 256, 0.1), None, (1, 1, 8, 1.0)]


@pytest.mark.parametrize("case", [0, 1, 2, 4])
def test_mmd_is_that_of_the_official_program(case):
    stored, (m, n, d, scale) = np.load(FIXTURES / "mmd_loss.npz"), SETS[case]
    r = np.random.RandomState(500 + case)
    fake = torch.from_numpy((scale * r.randn(m, d)).astype(np.float32)).requires_grad_()
    real = torch.from_numpy((scale * (r.randn(n, d) + 0.3)).astype(np.float32))
    loss = mmd(fake, real)
    loss.backward()
    assert loss.item() == pytest.approx(float(stored[f"loss_{case}"]), rel=1e-4)
    assert fake.grad.norm().item() == pytest.approx(float(stored[f"gradnorm_{case}"]), rel=1e-4)
    scale = np.abs(stored[f"grad_{case}"]).max()
    np.testing.assert_allclose(fake.grad[:4, :16].numpy(), stored[f"grad_{case}"], atol=1e-4 * scale)


def test_mmd_is_the_formula_also_for_sets_of_different_sizes():
    draw = torch.Generator().manual_seed(0)
    fake, real = torch.randn(3, 4, generator=draw), torch.randn(5, 4, generator=draw)

    def mean_kernel(a, b):
        return np.mean([sum(math.exp(-float((x - y).square().sum()) / (2 * v)) for v in (2, 5)) for x in a for y in b])

    expected = math.sqrt(mean_kernel(fake, fake) + mean_kernel(real, real) - 2 * mean_kernel(fake, real))
    assert mmd_plain(fake, real, (2, 5)).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_the_fast_mmd_is_the_plain_one(seed, generated, given_):
    draw = torch.Generator().manual_seed(seed)
    fake, real = torch.randn(generated, 4, generator=draw), 1 + torch.randn(given_, 4, generator=draw)
    assert_agree(lambda f: mmd(f, real.to(f.dtype)), lambda f: mmd_plain(f, real.to(f.dtype)), fake, double=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, 1.0, 100.0]), st.sampled_from([0.0, 0.4, 1.0]))
def test_the_fast_cross_entropy_is_the_plain_one(seed, weight, ignored):
    draw = torch.Generator().manual_seed(seed)
    logits, label = 3 * torch.randn(2, 5, 3, 4, generator=draw), torch.randint(0, 5, (2, 3, 4), generator=draw)
    label[torch.rand(label.shape, generator=draw) < ignored] = 255
    weights = None if weight is None else class_weights(5, [1, 3], weight)
    assert_agree(
        lambda z: weighted_cross_entropy(z, label, weights, 2),
        lambda z: weighted_cross_entropy_plain(z, label, weights, 2),
        logits,
        double=True,
    )


def test_mmd_of_several_sets_at_once_and_of_equal_ones():
    draw = torch.Generator().manual_seed(0)
    fake, real = torch.randn(3, 7, 4, generator=draw), torch.randn(3, 7, 4, generator=draw)
    assert mmd(fake, real).tolist() == pytest.approx([mmd(a, b).item() for a, b in zip(fake, real, strict=True)])
    same = fake.clone().requires_grad_()
    loss = mmd(same, fake)
    loss.sum().backward()
    assert loss.max() < 1e-3 and same.grad.isfinite().all()


def test_no_gradient_reaches_the_real_features():
    fake, real = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    mmd(fake, real).backward()
    assert fake.grad is not None and real.grad is None


@pytest.mark.parametrize(
    "case, shape, weight", [(0, (3, 21, 9, 11), 100), (1, (1, 60, 7, 1), 100), (2, (2, 21, 9, 11), 0)]
)
def test_segmentation_loss_is_that_of_the_official_program(case, shape, weight):
    stored, (n, c, h, w) = np.load(FIXTURES / "seg_loss.npz"), shape
    r = np.random.RandomState(600 + case)
    logits = torch.from_numpy(r.randn(*shape).astype(np.float32)).requires_grad_()
    label = r.randint(0, c, (n, h, w))
    label[r.rand(n, h, w) < 0.2] = 255
    if weight:
        label[0, 0, 0] = 10
    weights = class_weights(c, [10, 14], weight) if weight else None
    loss = weighted_cross_entropy(logits, torch.from_numpy(label.astype(np.uint8)), weights, images=n)
    loss.backward()
    assert loss.item() == pytest.approx(float(stored[f"loss_{case}"]), rel=1e-5)
    assert logits.grad.norm().item() == pytest.approx(float(stored[f"gradnorm_{case}"]), rel=1e-5)
    np.testing.assert_allclose(logits.grad[0, :4, :2, :2].numpy(), stored[f"grad_{case}"], rtol=1e-4, atol=1e-8)


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.full((2, 2, 2), 255, dtype=torch.uint8), class_weights(3, [1], 5), 2)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_halves_of_a_batch_divided_by_the_mean_weight_average_to_the_whole():
    draw = torch.Generator().manual_seed(1)
    logits, label = torch.randn(4, 3, 2, 2, generator=draw), torch.randint(0, 3, (4, 2, 2), generator=draw)
    weights = class_weights(3, [2], 10.0)
    total = torch.stack([label_weight(half, weights) for half in label.chunk(2)]).mean()
    parts = [
        weighted_cross_entropy(half, own, weights, 4, total)
        for half, own in zip(logits.chunk(2), label.chunk(2), strict=True)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(weighted_cross_entropy(logits, label, weights, 4).item())


def test_cosine_loss_of_a_hit_a_right_angle_and_an_ignored_pixel():
    similarity = torch.tensor([[1.0, 0.0, 0.3], [0.0, 0.0, -0.5]])[None, :, None]
    assert cosine_loss(similarity, torch.tensor([[[0, 1, 255]]])).item() == pytest.approx((0 + 1) / 2)
    assert cosine_loss(similarity, torch.full((1, 1, 3), 255)).item() == 0


def logits_of(classes, certainty):
    """Logits [3, 1, n] whose arg-max and softmax are these."""
    values = torch.zeros(3, 1, len(classes))
    for place, (c, p) in enumerate(zip(classes, certainty, strict=True)):
        values[c, 0, place] = math.log(2 * p / (1 - p))
    return values


def test_the_most_certain_unseen_labels_stay():
    classes, certainty = [1, 1, 2, 2, 2, 0, 1], [0.9, 0.5, 0.6, 0.95, 0.4, 0.99, 0.8]
    logits = logits_of(classes, certainty)
    label, lowest = keep_most_certain(logits, [1, 2], 50)  # ceil(0.5 * 6) = 3: 0.95, 0.9, 0.8
    assert label.tolist() == [[1, 255, 255, 2, 255, 255, 1]] and label.dtype == torch.uint8
    assert lowest == {1: pytest.approx(0.8), 2: pytest.approx(0.95)}
    label, _ = keep_most_certain(logits, [1, 2], 50, pooling="class", others="keep")  # 2 of each
    assert label.tolist() == [[1, 255, 2, 2, 255, 0, 1]]
    label, lowest = keep_most_certain(logits[..., 5:6], [1, 2], 50)
    assert label.tolist() == [[255]] and lowest == {}
    assert keep_most_certain(logits, [1, 2], 100)[0].tolist() == [[1, 1, 2, 2, 2, 255, 1]]


def test_ties_with_the_last_one_stay_too():
    logits = F.one_hot(torch.tensor([[1, 1, 1, 0]]), 3).movedim(-1, 0).float()
    assert keep_most_certain(logits, [1], 34)[0].tolist() == [[1, 1, 1, 255]]


def test_double_precision_is_kept_and_half_is_left():
    logits, label = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randint(0, 3, (2, 4, 4))
    assert weighted_cross_entropy(logits, label, class_weights(3, [1], 5)).dtype == torch.float64
    assert weighted_cross_entropy(logits.bfloat16(), label).dtype == torch.float32
    assert mmd(logits[0, 0], logits[1, 0]).dtype == torch.float64 and mmd(logits[0, 0].half(), logits[1, 0].half()) > 0
