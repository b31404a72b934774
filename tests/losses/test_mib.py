import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.mib import (
    unbiased_cross_entropy,
    unbiased_cross_entropy_plain,
    unbiased_distillation,
    unbiased_distillation_plain,
)
from tests.losses.agreement import assert_agree


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 4), st.sampled_from([0.0, 0.4, 1.0]))
def test_the_fast_forms_are_the_plain_ones(seed, num_old, num_new, ignored):
    logits, old = 3 * draw(seed, 2, num_old + num_new, 3, 4), 3 * draw(seed + 1, 2, num_old, 3, 4)
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(0, num_old + num_new, (2, 3, 4), generator=g)
    label[torch.rand(label.shape, generator=g) < ignored] = 255
    assert_agree(
        lambda z: unbiased_cross_entropy(z, label, num_old),
        lambda z: unbiased_cross_entropy_plain(z, label, num_old),
        logits,
    )
    for alpha in (1.0, 0.5):
        assert_agree(
            lambda z, a=alpha: unbiased_distillation(z, old, a),
            lambda z, a=alpha: unbiased_distillation_plain(z, old.to(z.dtype), a),
            logits,
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_unbiased_losses_do_not_see_how_background_is_shared(seed, num_old, num_new):
    """Moving probability between background and the classes that it may contain changes nothing."""
    prob = draw(seed, 1, num_old + num_new, 2, 2).softmax(1)
    moved = prob.clone()
    old_part = prob[:, :num_old].sum(1)
    moved[:, :num_old] = (old_part / num_old)[:, None]
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    one, two = (unbiased_cross_entropy(p.log(), label, num_old).item() for p in (prob, moved))
    assert one == pytest.approx(two, rel=1e-5)
