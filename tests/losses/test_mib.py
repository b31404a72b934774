import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.mib import unbiased_cross_entropy, unbiased_distillation


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
