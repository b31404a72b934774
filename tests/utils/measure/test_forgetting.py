import numpy as np
import pytest

from utils.measure.forgetting import forgetting, step_curves, step_matrix, summarize_steps

GROUPS = [["a", "b"], ["c"], ["d"]]
METRICS = [
    {"step": 0, "miou": 0.6, "per_class": {"a": 0.8, "b": None}},
    {"step": 1, "miou": 0.5, "old_miou": 0.5, "per_class": {"a": 0.6, "b": 0.4, "c": 0.3}},
    {"step": 2, "miou": 0.4, "old_miou": 0.3, "new_miou": 0.2, "per_class": {"a": 0.2, "b": 0.4, "c": 0.1, "d": 0.9}},
]


def test_matrix_of_steps_and_groups():
    """The mean of 0.8 and an absent class is 0.4; groups to come have no value."""
    expected = [[0.4, np.nan, np.nan], [0.5, 0.3, np.nan], [0.3, 0.1, 0.9]]
    np.testing.assert_allclose(step_matrix(METRICS, GROUPS), expected)


def test_forgetting_is_the_fall_from_the_best():
    """Group 0: best 0.5, last 0.3; group 1: 0.3 to 0.1; the last group cannot be forgotten yet."""
    assert forgetting(step_matrix(METRICS, GROUPS)) == pytest.approx((0.2 + 0.2) / 2)
    assert forgetting(step_matrix(METRICS[:1], GROUPS)) is None
    assert forgetting(step_matrix(METRICS, [["a"], ["never learned"], ["d"]])) is None


def test_summary_holds_the_last_step_the_means_and_the_matrix():
    summary = summarize_steps(METRICS, GROUPS)
    assert summary["last"] == METRICS[-1] and summary["groups"] == GROUPS
    assert summary["mean_over_steps"] == pytest.approx({"miou": 0.5, "old_miou": 0.4, "new_miou": 0.2})
    assert summary["step_matrix"][0] == [0.4, None, None]
    assert step_curves(METRICS)["classes of step 0"] == [(1, 0.5), (2, 0.3)]
