import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.measure.ranking import split_by_score

VECTORS = Path(__file__).parents[2] / "fixtures" / "discovery" / "c11_entropy_rank.json"
scores = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, math.nan])), max_size=30)


@pytest.mark.parametrize("proportion", ["0.67", "0.5", "3"])
def test_lists_of_the_official_code(proportion):
    official = json.loads(VECTORS.read_text())
    entropy = official["entropy_official"]
    easy, hard = split_by_score(list(entropy), list(entropy.values()), float(proportion))
    assert {"easy": easy, "hard": hard} == official[proportion]


def test_ties_keep_the_given_order():
    assert split_by_score(["d", "b", "c", "a"], [1, 0, 1, 0], 0.5) == (["b", "a"], ["d", "c"])


def test_share_is_rounded_down():
    assert [len(split_by_score(list("abc"), [0, 1, 2], p)[0]) for p in (0.3, 0.34, 0.67, 0.99)] == [0, 1, 2, 2]


def test_one_and_more_is_a_count():
    assert [len(split_by_score(list("abc"), [0, 1, 2], p)[0]) for p in (1, 1.0, 2, 3, 7)] == [1, 1, 2, 3, 3]


def test_an_image_without_score_is_last_wherever_it_stood():
    nan = math.nan
    assert split_by_score(list("abcde"), [nan, 2, nan, 1, float("nan")], 2) == (["d", "b"], ["a", "c", "e"])


def test_a_missing_score_is_an_error():
    with pytest.raises(ValueError):
        split_by_score(["a", "b"], [1.0], 0.5)


@given(scores, st.floats(0.01, 40))
def test_a_split_keeps_every_name_once_and_separates_the_scores(values, proportion):
    names = [f"{i:02d}" for i in range(len(values))]
    low, high = split_by_score(names, values, proportion)
    assert sorted(low + high) == names
    rank = [math.inf if math.isnan(values[int(name)]) else values[int(name)] for name in low + high]
    assert rank == sorted(rank)
    assert len(low) == min(len(names), int(proportion if proportion >= 1 else proportion * len(names)))


def test_groups_keep_the_same_share_each():
    names, groups = list("abcdef"), [0, 0, 0, 0, 1, 1]
    scores = [0.1, 0.2, 0.3, 0.4, 0.8, 0.9]  # without groups the low half is a, b, c
    assert split_by_score(names, scores, 0.5, groups) == (["a", "e", "b"], ["c", "f", "d"])


def test_a_group_without_scores_is_last():
    assert split_by_score(list("abc"), [math.nan, 0.5, 0.1], 2, [0, 1, 1]) == (["c", "b"], ["a"])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_within_a_group_the_low_scores_stay(images, proportion):
    names, groups, values = list(range(len(images))), [g for g, _ in images], [v for _, v in images]
    low, high = split_by_score(names, values, proportion, groups)
    assert sorted(low + high) == names and len(low) == int(proportion * len(names))
    for group in set(groups):
        kept = [values[i] for i in low if groups[i] == group]
        moved = [values[i] for i in high if groups[i] == group]
        assert not kept or not moved or max(kept) <= min(moved)
        size = len(kept) + len(moved)
        assert abs(len(kept) - proportion * size) <= len(set(groups)) + 1  # a rounding per group
