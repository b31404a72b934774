"""The number of clusters of points whose groups are known."""

import numpy as np
import pytest

from utils.errors import UserError
from utils.measure.num_clusters import estimate_k, known_classes


def groups(count: int, size: int, seed: int) -> np.ndarray:
    """`count` far groups of `size` points in 8 dimensions."""
    rng = np.random.default_rng(seed)
    middles = 10 * np.eye(8)[:count] if count <= 8 else rng.normal(0, 10, (count, 8))
    return np.concatenate([middle + rng.normal(0, 0.5, (size, 8)) for middle in middles])


def test_every_criterion_finds_groups_that_lie_apart():
    estimate = estimate_k(groups(4, 12, 0), [groups(8, 10, 1)[:10] + 40, groups(8, 10, 2)[10:20] - 40], None, most=6)
    assert estimate.k == 4
    assert estimate.best["silhouette"] == estimate.best["stability"] == 4
    assert set(estimate.curves["silhouette"]) == set(range(2, 7))


def test_too_few_clusters_merge_known_classes():
    base, new = 0.2 * groups(3, 10, 0), -groups(4, 10, 1)
    curve = known_classes(np.concatenate([base, new]), np.repeat([0, 1, 2], 10), range(1, 6), 0)
    assert curve[4] == 1 and curve[1] < 1  # 3 + 4 groups: each has a cluster; with 3 + 1 the near ones share one


def test_a_handful_of_objects_tells_nothing():
    with pytest.raises(UserError, match=r"cluster\.k=auto: only 5 objects"):
        estimate_k(groups(5, 1, 0))
