import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from losses.eums import image_entropy, image_entropy_plain, teacher_label
from tests.losses.agreement import assert_agree

VECTORS = Path(__file__).parents[1] / "fixtures" / "discovery"
NUM_BASE = 15


@pytest.fixture(scope="module")
def official() -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Logits [12, 26, 32, 40], pseudo-labels [12, 32, 40] and the official code's score of every image."""
    arrays = np.load(VECTORS / "c11_entropy_inputs.npz")
    logits, labels = (np.kron(arrays[f"{name}_quarter"], np.ones((4, 4))) for name in ("logits", "labels"))
    scores = json.loads((VECTORS / "c11_entropy_rank.json").read_text())["entropy_official"]
    values = [scores[f"img{i:02d}"] for i in range(len(scores))]
    return torch.from_numpy(logits).float(), torch.from_numpy(labels).long(), values


def test_scores_of_the_official_code(official):
    logits, labels, expected = official
    scores = image_entropy(logits, labels > NUM_BASE)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(5, 4), (10, 8), (13, 9)])  # of the cells, a multiple, and neither
def test_the_fast_form_is_the_plain_one(size):
    """An image with an empty mask has no score and no gradient."""
    g = torch.Generator().manual_seed(1)
    logits, mask = torch.randn(3, 6, 5, 4, generator=g) * 3, torch.rand(3, *size, generator=g) < 0.4
    assert_agree(lambda z: image_entropy(z, mask), lambda z: image_entropy_plain(z, mask), logits)
    mask[1] = False
    found, plain = image_entropy(logits, mask), image_entropy_plain(logits, mask)
    torch.testing.assert_close(found, plain, equal_nan=True)
    assert plain.isnan().tolist() == [False, True, False]


def test_the_mask_decides_the_order(official):
    logits, labels, expected = official
    everywhere = image_entropy(logits, torch.ones_like(labels, dtype=torch.bool))
    assert everywhere.argsort().tolist() != np.argsort(expected).tolist()


def test_by_hand():
    """C = 4: even probabilities have entropy 1, (1/2, 1/2, 0, 0) has 1/2; the mean 3/4 times 1/C."""
    logits = torch.zeros(1, 4, 1, 3)
    logits[0, 2:, 0, 1] = -1e4
    logits[0, 1:, 0, 2] = -1e4  # a certain pixel, outside the mask
    mask = torch.tensor([[[True, True, False]]])
    assert image_entropy(logits, mask).item() == pytest.approx(0.75 / 4, abs=1e-6)


def test_one_pixel_against_the_formula():
    logits = torch.randn(1, 7, 1, 1, generator=torch.Generator().manual_seed(0))
    prob = [math.exp(v) for v in logits.flatten().tolist()]
    prob = [p / sum(prob) for p in prob]
    expected = -sum(p * math.log2(p) for p in prob) / math.log2(7) / 7
    assert image_entropy(logits, torch.ones(1, 1, 1, dtype=torch.bool)).item() == pytest.approx(expected, rel=1e-5)


def test_an_image_without_pixels_is_nan_and_leaves_the_others_alone():
    logits = torch.zeros(3, 5, 2, 2)
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    mask[1] = False
    scores = image_entropy(logits, mask)
    assert scores.isnan().tolist() == [False, True, False]
    assert scores[0].item() == scores[2].item() == pytest.approx(1 / 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_certain_pixels_is_finite(dtype):
    """A probability that underflows contributes 0, not 0 * log 0."""
    logits = torch.tensor([30.0, -30.0, 0.0]).view(1, 3, 1, 1)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    score = image_entropy(logits.to(dtype), mask)
    assert score.item() == pytest.approx(image_entropy(logits, mask).item(), abs=1e-6)


def probabilities(*pixels: list[float]) -> torch.Tensor:
    """Logits [1, C, 1, pixels] with the given probabilities."""
    return torch.tensor(pixels).T.log().view(1, len(pixels[0]), 1, len(pixels))


def test_teacher_keeps_what_reaches_the_threshold():
    logits = probabilities([0.2, 0.8, 0.0], [0.4, 0.35, 0.25], [0.1, 0.3, 0.6])
    assert teacher_label(logits, 0.5).tolist() == [[[1, 255, 2]]]
    assert teacher_label(logits, 0.7).tolist() == [[[1, 255, 255]]]


def test_teacher_of_more_classes_than_eight_bits():
    """Class 255 is a class then, and what is not sure gets 65535."""
    logits = torch.zeros(1, 300, 1, 2)
    logits[0, 255, 0, 0] = 20
    label = teacher_label(logits, 0.5)
    assert label.tolist() == [[[255, 65535]]] and label.dtype == torch.int32
    assert teacher_label(logits, 0.0).dtype == torch.int32


def test_teacher_keeps_a_pixel_exactly_at_the_threshold():
    assert teacher_label(torch.zeros(1, 4, 1, 1), 0.25).item() == 0


def test_teacher_without_threshold_labels_every_pixel():
    logits = torch.randn(2, 26, 8, 8, generator=torch.Generator().manual_seed(0))
    label = teacher_label(logits, 0.0)
    assert label.dtype == teacher_label(logits, 0.5).dtype == torch.int64
    assert torch.equal(label, logits.softmax(1).argmax(1))


def test_teacher_reads_nothing_on_the_host():
    """On the meta device reading a value would raise."""
    for threshold in (0.0, 0.9):
        assert teacher_label(torch.empty(2, 5, 4, 4, device="meta"), threshold).shape == (2, 4, 4)
