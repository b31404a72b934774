"""Calibrated bias: one pass against deciding anew at every gamma."""

import numpy as np
import pytest
import torch

from utils.measure.metrics import confusion_matrix, summarize
from utils.measure.sweep import GAMMAS, Sweep, area

SEEN, UNSEEN, C = (0, 1, 3), (2, 4), 5


def test_one_pass_gives_the_confusion_of_every_gamma():
    draw = torch.Generator().manual_seed(0)
    sweep, whole = Sweep(SEEN, UNSEEN, gammas=(-1.0, 0.0, 0.5, 2.0)), []
    for _ in range(2):
        scores = torch.randn(3, C, 6, 7, generator=draw)
        label = torch.randint(0, C, (3, 6, 7), generator=draw)
        label[:, 0] = 255
        label = label.to(torch.uint8)
        sweep.count(sweep.leads(scores), label)
        whole.append((scores, label))
    for place, gamma in enumerate(sweep.gammas):
        expected = torch.zeros(C, C, dtype=torch.int64)
        for scores, label in whole:
            moved = scores.clone()
            moved[:, list(SEEN)] -= gamma
            expected += confusion_matrix(moved.argmax(1), label, C, C)
        assert sweep.confusions()[place].tolist() == expected.tolist()


def test_the_curve_ends_where_one_group_takes_everything():
    scores, label = torch.randn(2, C, 8, 8), torch.randint(0, C, (2, 8, 8))
    sweep = Sweep(SEEN, UNSEEN)
    sweep.count(sweep.leads(scores), label)
    curve = sweep.curve(list("abcde"))
    assert len(curve["gamma"]) == len(curve["seen_miou"]) == len(GAMMAS)
    assert curve["unseen_miou"][0] == 0 and curve["seen_miou"][-1] == 0
    middle = curve["gamma"].index(0.0)
    plain = summarize(confusion_matrix(scores.argmax(1), label, C, C), list("abcde"), {"seen": SEEN, "unseen": UNSEEN})
    assert curve["harmonic_miou"][middle] == pytest.approx(plain["harmonic_miou"])
    assert curve["best_harmonic_miou"] == max(curve["harmonic_miou"])


def test_area_of_a_square_and_of_a_triangle():
    assert area([1.0, 0.5], [0.5, 0.5]) == pytest.approx(0.5)
    assert area([1.0, 0.0], [0.0, 1.0]) == pytest.approx(0.5)
    assert area([0.0, 1.0, 0.5], [1.0, 0.0, 0.8]) == pytest.approx(0.5 * (1.8 / 2) + 0.5 * 0.4)


def test_gammas_are_symmetric_with_a_zero():
    assert np.allclose(GAMMAS, -np.array(GAMMAS)[::-1]) and 0.0 in GAMMAS
