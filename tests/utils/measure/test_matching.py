"""Clusters and classes, against all ways to pair them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utils.measure.matching import apply_match, match_all, match_clusters

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 5))  # classes, clusters


def overlaps(block: np.ndarray) -> list[list[float]]:
    """IoU of every class and cluster, pixel counts added one by one."""
    rows, columns = block.shape
    ious = []
    for row in range(rows):
        ious.append([])
        for column in range(columns):
            both, either = int(block[row, column]), int(block[row].sum() + block[:, column].sum() - block[row, column])
            ious[-1].append(both / either if either else 0.0)
    return ious


def pairings(rows: int, columns: int):
    """All ways to give clusters different classes, as many as there can be: class of each cluster, or -1."""
    if columns <= rows:
        yield from permutations(range(rows), columns)
        return
    for chosen in permutations(range(columns), rows):
        yield tuple(chosen.index(column) if column in chosen else -1 for column in range(columns))


@given(st.data())
def test_one_to_one_has_the_largest_sum_of_iou(data):
    block = data.draw(hnp.arrays(np.int64, data.draw(SIZES), elements=st.integers(0, 20)))
    ious, found = overlaps(block), match_all(block, "one_to_one").tolist()

    def total(match) -> float:
        return sum(ious[number][cluster] for cluster, number in enumerate(match) if number >= 0)

    assert tuple(found) in set(pairings(*block.shape))
    assert total(found) == pytest.approx(max(map(total, pairings(*block.shape))))


@given(st.data())
def test_many_to_one_takes_the_first_of_the_best(data):
    block = data.draw(hnp.arrays(np.int64, data.draw(SIZES), elements=st.integers(0, 20)))
    columns = np.array(overlaps(block)).T.tolist()
    assert match_all(block, "many_to_one").tolist() == [column.index(max(column)) for column in columns]


@given(st.data())
def test_merged_columns_hold_every_pixel_once(data):
    """Known classes stay apart from clusters, which are matched by the pixels of novel classes alone."""
    known, (novel, clusters) = data.draw(st.integers(1, 3)), data.draw(SIZES)
    matrix = data.draw(hnp.arrays(np.int64, (known + novel, known + clusters), elements=st.integers(0, 20)))
    match = match_clusters(matrix, known, "one_to_one")
    assert match.tolist() == match_all(matrix[known:, known:], "one_to_one").tolist()
    merged = apply_match(matrix, match, known)
    for truth in range(known + novel):
        expected = [*matrix[truth, :known].tolist(), *[0] * (novel + 1)]
        for cluster, number in enumerate(match.tolist()):
            expected[known + number if number >= 0 else -1] += int(matrix[truth, known + cluster])
        assert merged[truth].tolist() == expected
