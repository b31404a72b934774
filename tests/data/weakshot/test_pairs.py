"""Against the official program's lists, made the slow way: sets, and one comparison of every two images."""

from collections import Counter

import numpy as np
import pytest

from data.weakshot.pairs import ALONE, COMMON, Partners

NOVEL = (1, 3, 4)
CLASSES = 6


def matrix(*images: set[int]) -> np.ndarray:
    found = np.zeros((len(images), CLASSES), np.uint8)
    for row, classes in enumerate(images):
        found[row, list(classes)] = 1
    return found


def by_sets(images: list[set[int]], index: int) -> tuple[dict[int, set[int]], set[int], set[int]]:
    """Images that share exactly one novel class, by class; those of an image with several; that share a base class."""
    novel, base = images[index] & set(NOVEL), images[index] - set(NOVEL)
    alone: dict[int, set[int]] = {number: set() for number in novel}
    several, common = set(), set()
    for other, classes in enumerate(images):
        both = novel & classes
        if len(both) == 1:
            alone[both.pop()].add(other)
        elif len(novel) > 1:
            several.add(other)
        if base & classes:
            common.add(other)
    return alone, several, common


def test_lists_are_those_of_the_sets():
    rng = np.random.default_rng(0)
    images = [set(np.flatnonzero(rng.random(CLASSES) < 0.4).tolist()) for _ in range(40)]
    found = Partners(matrix(*images), NOVEL).candidates(range(40))
    for index, lists in enumerate(found):
        got = {number: set(kept.tolist()) for number, kept in lists.alone.items()}, set(lists.novel), set(lists.base)
        assert got == by_sets(images, index)


def test_long_lists_are_cut_for_good_and_not_to_their_head():
    images = matrix(*[{0, 1, 3}] + [{0, 1}] * 700 + [{0, 4}] * 80)
    one, same, other = (Partners(images, NOVEL, seed=seed).candidates([0])[0] for seed in (1, 1, 2))
    assert len(one.alone[1]) == ALONE and len(one.novel) == len(one.base) == COMMON
    assert set(one.alone[1]) <= set(range(1, 701)) and max(one.alone[1]) == 700  # the last one always stays
    assert set(one.novel) <= {0, *range(701, 781)}
    assert len(set(one.alone[1])) == ALONE and len(set(one.base)) == COMMON
    assert all(np.array_equal(one.alone[n], same.alone[n]) for n in one.alone) and np.array_equal(one.base, same.base)
    assert not np.array_equal(np.sort(one.alone[1]), np.sort(other.alone[1]))


def drawn(images: np.ndarray, index: int, rule: str, times: int = 400) -> Counter:
    partners, rng = Partners(images, NOVEL, rule), np.random.default_rng(3)
    return Counter(partners.draw(index, rng) for _ in range(times))


SHOWN = matrix(
    {0, 1, 3},  # 0: two novel classes
    {0, 1},  # 1
    {3, 5},  # 2
    {3},  # 3
    {1, 3},  # 4: shares both
    {5},  # 5: no novel class
    {2},  # 6: shares nothing
    {2, 4},  # 7
)


def test_official_partners():
    found = drawn(SHOWN, 0, "official")
    assert set(found) == {1, 2, 3}  # share one novel class with it; image 4 shares two
    assert 150 < found[1] < 250  # a class is drawn first: half the time the one that one image has
    assert set(drawn(SHOWN, 1, "official")) == {0}  # one novel class: only base classes count
    assert set(drawn(SHOWN, 5, "official")) == {2}
    assert set(drawn(SHOWN, 3, "official")) == {3}  # one novel class and no base class: itself
    assert set(drawn(SHOWN, 4, "official")) == {1, 2, 3}


def test_rarely_the_class_with_the_fewest_candidates():
    """Class 1 has one candidate, class 3 has 300: chance gives the one half of the draws and the other half too, so a
    generator that never lets the coin fall shows the rule."""
    partners = Partners(matrix({1, 3}, {1}, *[{3}] * 300), NOVEL)

    class Coin:
        def __init__(self, first: float):
            self.values = [first, 0.99, 0.5]

        def random(self) -> float:
            return self.values.pop(0)

    assert partners.draw(0, Coin(0.009)) == 1
    assert partners.draw(0, Coin(0.011)) > 1  # 0.99 of two classes: the second


def test_an_empty_list_counts_as_full():
    partners = Partners(matrix({1, 3}, {3}, {3}), NOVEL)
    rng = type("Zero", (), {"random": lambda self: 0.0})()
    assert partners.draw(0, rng) == 1  # class 1 has no candidate, and yet is not the rarest


def test_fixed_partners_share_a_novel_class_even_of_images_with_one():
    assert set(drawn(SHOWN, 1, "fixed")) == {0, 4}
    assert set(drawn(SHOWN, 3, "fixed")) == {0, 2, 4}
    assert set(drawn(SHOWN, 0, "fixed")) == {1, 2, 3}  # those that share no other novel class, as there are some
    assert set(drawn(matrix({1, 3}, {1, 3}), 0, "fixed")) == {1}
    assert set(drawn(SHOWN, 7, "fixed")) == {6}  # nobody else has class 4: one with base class 2
    assert set(drawn(SHOWN, 5, "fixed")) == {2}
    assert set(drawn(matrix({1}, {3}), 0, "fixed")) == {0}


@pytest.mark.parametrize(
    ("rule", "of_0", "of_3"),
    [("binter", {1}, {3}), ("ninter", {4, 5, 6, 7}, {3}), ("rand", {1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 4, 5, 6, 7})],
)
def test_the_other_rules(rule, of_0, of_3):
    assert set(drawn(SHOWN, 0, rule)) == of_0 and set(drawn(SHOWN, 3, rule)) == of_3


def test_the_only_image_meets_itself():
    for rule in ("official", "fixed", "binter", "ninter", "rand"):
        assert drawn(matrix({0, 1}), 0, rule, 3) == {0: 3}
