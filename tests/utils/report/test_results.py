"""Reading a chain's files back, with figures worked by hand."""

import numpy as np
import pytest

from utils.checkpoint import write_json
from utils.errors import UserError
from utils.report import results

# background, one base class, novel classes a and b; clusters 1, 2, 3
MATRIX = np.array([[8, 1, 0, 0, 1], [2, 6, 0, 1, 1], [0, 0, 0, 4, 0], [1, 0, 3, 0, 0]])


def test_only_finished_stages_count(tmp_path):
    (tmp_path / "basic").mkdir()
    write_json(tmp_path / "eval_eums" / "metrics.json", {"miou": 0.5})
    assert results.finished_stages(tmp_path) == {"eval_eums": {"miou": 0.5}}


def test_nothing_finished(tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(UserError, match="no finished stage"):
        results.finished_stages(tmp_path)


def test_history_apart_into_losses_and_scores(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(
        '{"step": 1, "epoch": 1, "train": {"base": 2.0, "novel": 1.5}, "lr": 0.1}\n'
        '{"step": 20, "epoch": 1, "val": {"novel_miou": 0.25}}\n'
        '{"step": 30, "epoch": 2, "train": {"base": 1.0, "novel": 0.5}, "lr": 0.1}\n'
        '{"step": 40, "ep'  # cut by a kill
    )
    train, val = results.read_history(path)
    assert train == {"base": [(1, 2.0), (30, 1.0)], "novel": [(1, 1.5), (30, 0.5)]}
    assert val == {"novel_miou": [(1, 0.25)]}
    assert results.read_history(tmp_path / "none.jsonl") == ({}, {})


def test_clusters_follow_their_class_and_leftover_ones_come_last():
    assert results.cluster_order([[0, 1], [1, -1], [2, 0], [3, 1]], 5) == [(2, 0), (0, 1), (3, 1), (1, -1), (4, -1)]


def test_confusion_rows_become_shares_in_the_new_column_order():
    shares = results.arrange_confusion(MATRIX, 2, [1, 0, 2])
    np.testing.assert_allclose(
        shares, [[0.8, 0.1, 0, 0, 0.1], [0.2, 0.6, 0.1, 0, 0.1], [0, 0, 1, 0, 0], [0.25, 0, 0, 0.75, 0]]
    )


def test_base_classes_merge_into_one():
    """Rows and columns 1, 2 are base: shares are of the pixels of both together. An absent class stays 0, not NaN."""
    matrix = np.array([[4, 0, 0, 0], [1, 5, 1, 1], [0, 2, 9, 1], [0, 0, 0, 0]])  # B = 2, one novel class, one cluster
    expected = [[1, 0, 0], [1 / 20, 17 / 20, 2 / 20], [0, 0, 0]]
    np.testing.assert_allclose(results.collapse_confusion(matrix, 3, [0]), expected)


def test_collapsing_changes_nothing_with_one_base_class():
    np.testing.assert_allclose(
        results.collapse_confusion(MATRIX, 2, [2, 0, 1]), results.arrange_confusion(MATRIX, 2, [2, 0, 1])
    )


def test_majority_class_and_its_share():
    objects = [(1, 2), (1, 2), (1, 1), (3, 0), (3, 1)]
    assert results.majority_class(objects) == {
        1: (2, pytest.approx(2 / 3)),
        3: (0, 0.5),
    }  # a tie goes to the lower class


def test_split_point():
    assert results.split_point([0.1, 0.3], [0.5, 0.9]) == pytest.approx(0.4)
    assert results.split_point([0.1], []) is None
