import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losses.plop import (
    background_entropies,
    entropy_thresholds,
    exact_median,
    fold_new_classes,
    local_pod,
    local_pod_plain,
    official_median,
    old_class_entropy,
    pod_loss,
    strips,
    thresholds_and_trust,
    trusted_label,
    trusted_share,
)
from tests.losses.agreement import assert_agree


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("side", [4, 8, 9, 13])
@pytest.mark.parametrize("scales", [(1, 2, 4), (1, 3)])
def test_the_fast_form_is_the_plain_one(side, scales):
    old, new = draw(0, 2, 3, side, side), draw(1, 2, 3, side, side)
    assert_agree(lambda *z: local_pod(*z, scales), lambda *z: local_pod_plain(*z, scales), old, new)
    assert strips(old, 4).shape[1] == 3 * 2 * (side // 4) * 16
    assert local_pod(old, old).item() == 0


def test_local_pod_by_hand():
    """A cell of squares [[0, 1], [4, 9]]: row means 1/2 and 13/2, column means 2 and 5; the other map is 0."""
    new = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2)
    expected = math.sqrt(0.5**2 + 6.5**2 + 2**2 + 5**2)
    assert local_pod_plain(torch.zeros_like(new), new, (1,)).item() == pytest.approx(expected)


def test_new_classes_fold_into_background():
    logits = torch.arange(1.0, 6).view(1, 5, 1, 1)  # two old classes besides background, two new ones
    assert fold_new_classes(logits, 3).flatten().tolist() == [1 + 4 + 5, 2, 3]


def test_pod_weights():
    """Seven classes, three of them new: sqrt(7 / 3); factors 0.01 and 0.0005 for the logits; mean over two layers."""
    old = [draw(0, 1, 2, 8, 8), draw(1, 1, 4, 8, 8)]
    new = [draw(2, 1, 2, 8, 8), draw(3, 1, 7, 8, 8)]
    layers = local_pod_plain(old[0], new[0]), local_pod_plain(old[1], fold_new_classes(new[1], 4))
    expected = math.sqrt(7 / 3) * (0.01 * layers[0] + 0.0005 * layers[1]) / 2
    assert pod_loss(old, new, 7, 3).item() == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_lies_in_the_range_of_the_official_code():
    """Four equal old classes of six: mean of -p ln p is ln 4 / 4, divided by ln 4 and ln 6."""
    assert old_class_entropy(torch.zeros(1, 4, 1, 1), 6).item() == pytest.approx(1 / (4 * math.log(6)), rel=1e-5)
    sure = torch.tensor([50.0, 0, 0, 0]).view(1, 4, 1, 1)
    assert old_class_entropy(sure, 6).item() == pytest.approx(0, abs=1e-6)


def test_labels_where_the_old_network_is_sure():
    """Background, two old classes and a new one; class 2 is never trusted, the last pixel is not sure."""
    logits = torch.full((1, 3, 1, 5), -20.0)
    for place, number in enumerate([1, 2, 1, 1, 1]):
        logits[0, number, 0, place] = 20.0
    logits[0, :, 0, 4] = 0.0
    assert old_class_entropy(logits, 4)[0, 0, 4].item() == pytest.approx(1 / (3 * np.log(4)), rel=1e-4)
    thresholds = torch.tensor([0.1, 0.1, 0.0])
    label, share = trusted_label(torch.tensor([[[0, 0, 3, 255, 0]]]), logits, thresholds, 4)
    assert label.tolist() == [[[1, 255, 3, 255, 255]]] and share.item() == pytest.approx(1 / 3, rel=1e-5)


# ---- medians


def test_official_median_within_the_first_bin():
    histogram = np.zeros(100, int)
    histogram[:2] = 8, 2  # half of ten is reached after 5/8 of the first bin
    assert official_median(histogram) == pytest.approx(5 / 8 / 100)


def test_official_median_adds_bin_numbers():
    """Ten in bin 3: after bins 0, 1, 2 the running sum is 0 + 1 + 2, so half of ten is 2 of 10 into the bin."""
    histogram = np.zeros(100, int)
    histogram[3] = 10
    assert official_median(histogram) == pytest.approx(3 / 100 + 2 / 10 / 100)


def test_official_median_without_a_bin_is_infinite():
    histogram = np.full(100, 1000)
    histogram[99] = 0
    assert official_median(histogram) == float("inf")


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=50))
def test_exact_median_is_the_median_up_to_a_bin(values):
    histogram = np.histogram(values, bins=1000, range=(0, 1))[0]
    ordered = sorted(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    assert low - 2e-3 <= exact_median(histogram, 1.0) <= high + 2e-3


def test_trusted_share_by_hand():
    """Four bins of 0.1: 2 + half of 4 of ten values lie below 0.15; none below 0; all below infinity."""
    histograms = np.array([[2, 4, 0, 4]] * 3 + [[0, 0, 0, 0]])
    shares = trusted_share(histograms, 0.4, np.array([0.15, 0.0, np.inf, 0.15]))
    np.testing.assert_allclose(shares, [0.4, 0, 1, np.nan])


def test_the_published_threshold_may_trust_nothing():
    """All entropies at 0.009, in the first of the official bins, whose middle is taken: 0.005 is below each of them."""
    top, coarse, fine = 1 / (16 * math.log(17)), np.zeros((1, 100), int), np.zeros((1, 10_000), int)
    coarse[0, 0] = fine[0, int(0.009 / top * 10_000)] = 1000
    official = entropy_thresholds(coarse, 1.0, "official", 0.001)
    exact = entropy_thresholds(fine, top, "exact", 0.001)
    assert official == pytest.approx([0.005]) and exact == pytest.approx([0.009], abs=1e-5)
    assert trusted_share(fine, top, official).tolist() == [0]
    assert trusted_share(fine, top, exact) == pytest.approx([0.5])


def test_histograms_of_background_by_the_class_that_the_old_network_sees():
    """Two classes, three pixels: one is labelled and does not count; the others are certain, and undecided."""
    logits = torch.tensor([[0.0, 20.0, 0.0], [20.0, 0.0, 0.0]]).view(1, 2, 1, 3)
    label = torch.tensor([[[1, 0, 0]]])
    counts = background_entropies(label, logits, num_classes=3)
    assert {bins: found.shape for bins, found in counts.items()} == {10_000: (2, 10_000), 100: (2, 100)}
    exact, official = counts[10_000], counts[100]
    assert exact.sum(1).tolist() == official.sum(1).tolist() == [2, 0]  # arg-max of a tie is class 0
    assert exact[0, 0] == 1 and exact[0, 9_990:].sum() == 1  # 0, and nearly the largest value
    undecided = 1 / (2 * math.log(3))  # mean over two classes of the normalised entropy 1, over ln 3
    assert official[0, 0] == 1 and official[0, int(100 * undecided)] == 1


def test_thresholds_from_both_histograms():
    """Four values in the lowest bins of the only class: the exact median trusts half of them, PLOP's all."""
    counts = {10_000: np.zeros((1, 10_000)), 100: np.zeros((1, 100))}
    counts[10_000][0, 0] = counts[100][0, 0] = 4
    top = 1 / math.log(3)
    thresholds, shares = thresholds_and_trust(counts, 3, "exact", 0.0)
    assert thresholds == pytest.approx([top / 10_000 / 2]) and shares == pytest.approx([0.5])
    thresholds, shares = thresholds_and_trust(counts, 3, "official", 0.0)
    assert thresholds == pytest.approx([0.005]) and shares == pytest.approx([1.0])
