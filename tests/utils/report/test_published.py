"""Published values against the identities that hold between them."""

import pytest

from utils.report.published import ZERO_SHOT, ZERO_SHOT_FROM_MEMORY

CLASSES = {"pascal": 21, "context": 60}


@pytest.mark.parametrize("key", ZERO_SHOT)
def test_zero_shot_means_follow_from_seen_and_unseen(key):
    """Harmonic is 2 s u / (s + u), all the mean over the classes of both; the paper rounds each of them."""
    values, unseen = ZERO_SHOT[key], int(key[1].removeprefix("unseen"))
    if {"seen", "unseen"} <= values.keys():
        s, u = values["seen"], values["unseen"]
        assert values["harmonic"] == pytest.approx(2 * s * u / (s + u), abs=0.15)
        if "all" in values:
            count = CLASSES[key[0]]
            assert values["all"] == pytest.approx(((count - unseen) * s + unseen * u) / count, abs=0.7)


def test_marks_are_of_values_that_are_there_or_unknown():
    assert all(key[:3] in ZERO_SHOT for key in ZERO_SHOT_FROM_MEMORY)
    assert ("pascal", "unseen2", "zs3", "harmonic") not in ZERO_SHOT_FROM_MEMORY
