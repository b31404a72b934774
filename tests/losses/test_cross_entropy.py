import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.cross_entropy import cross_entropy, cross_entropy_plain
from tests.losses.agreement import assert_agree


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [2, 5, 6, 7] and labels with about a third of the pixels ignored."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 5, (2, 6, 7), generator=g, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=g) < 0.3] = 255
    return 3 * torch.randn(2, 5, 6, 7, generator=g), label


def by_loop(logits: torch.Tensor, label: torch.Tensor) -> float:
    """Sum of -log softmax over the labelled pixels, one at a time in double precision."""
    total = 0.0
    for b, y, x in (label != 255).nonzero().tolist():
        values = [float(v) for v in logits[b, :, y, x]]
        total += math.log(sum(math.exp(v) for v in values)) - values[label[b, y, x]]
    return total


def test_by_hand():
    """p = 3/4 for the first pixel's class, 1/4 for the second's; the third is ignored."""
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    label = torch.tensor([[[0, 1, 255]]])
    assert cross_entropy(logits, label).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, rel=1e-6)


def test_mean_over_the_labelled_pixels_of_the_batch():
    """Not a mean of the images' means: the two images have different numbers of labelled pixels."""
    logits, label = batch()
    label[1, :3] = 255
    expected = by_loop(logits, label) / (label != 255).sum().item()
    assert cross_entropy(logits, label).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_fast_form_is_the_plain_one(seed, ignored):
    g = torch.Generator().manual_seed(seed)
    logits, label = 5 * torch.randn(2, 4, 3, 5, generator=g), torch.randint(0, 4, (2, 3, 5), generator=g)
    label[torch.rand(label.shape, generator=g) < ignored] = 255
    assert_agree(lambda z: cross_entropy(z, label), lambda z: cross_entropy_plain(z, label), logits)
    label[label == 255] = 2
    found, plain = (form(logits, label, ignore_index=2) for form in (cross_entropy, cross_entropy_plain))
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_label_type_and_memory_layout_do_not_matter(dtype, memory):
    logits, label = batch()
    loss = cross_entropy(logits.contiguous(memory_format=memory), label.to(dtype))
    assert loss.item() == pytest.approx(cross_entropy(logits, label).item(), rel=1e-6)


def test_gradient_is_softmax_minus_one_hot_over_the_count():
    logits, label = batch()
    logits.requires_grad_()
    cross_entropy(logits, label).backward()
    valid = label != 255
    target = torch.nn.functional.one_hot(label.long() * valid, 5).movedim(-1, 1)
    expected = (logits.detach().softmax(1) - target) * valid[:, None] / valid.sum()
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-7)


def test_nothing_labelled_is_zero_with_zero_gradient():
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("count", [0.5, 1.0, 40.0])
def test_given_number_of_pixels(count):
    logits, label = batch()
    loss = cross_entropy(logits, label, pixels=torch.tensor(count))
    assert loss.item() == pytest.approx(by_loop(logits, label) / count, rel=1e-5)


def test_two_processes_average_to_the_whole_batch():
    """Each half divides by the mean of both counts; the mean of the losses is the loss of the whole batch."""
    logits, label = batch()
    label[1, :4] = 255
    pixels = (label != 255).sum() / 2
    halves = [cross_entropy(logits[i : i + 1], label[i : i + 1], pixels=pixels).item() for i in range(2)]
    assert sum(halves) / 2 == pytest.approx(cross_entropy(logits, label).item(), rel=1e-5)


def test_another_ignored_value():
    logits, label = batch()
    other = torch.where(label == 255, 4, label)
    label[label == 4] = 255
    assert cross_entropy(logits, other, ignore_index=4).item() == pytest.approx(cross_entropy(logits, label).item())


def test_half_precision_logits_are_summed_in_single():
    """128 x 128 pixels at log 2 each: the sum 11357 and the count do not fit the steps of half precision."""
    logits = torch.zeros(1, 2, 128, 128, dtype=torch.float16)
    loss = cross_entropy(logits, torch.zeros(1, 128, 128, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_never_reads_a_value_on_the_host():
    """Tensors on the meta device have no values: reading one would raise, as it would make a GPU wait."""
    logits = torch.empty(2, 5, 4, 4, device="meta")
    label = torch.empty(2, 4, 4, dtype=torch.uint8, device="meta")
    assert cross_entropy(logits, label).shape == ()
    assert cross_entropy(logits, label, pixels=torch.empty((), device="meta")).shape == ()
