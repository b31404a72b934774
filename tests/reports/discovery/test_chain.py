"""Confusion and clusters of a chain, with numbers worked by hand."""

import numpy as np
import pytest

from reports import page
from reports.discovery import chain as discovery_chain
from reports.discovery import table as discovery_table
from utils.report.results import Stage

# background, one base class, novel classes a and b; clusters 1, 2, 3
MATRIX = np.array([[8, 1, 0, 0, 1], [2, 6, 0, 1, 1], [0, 0, 0, 4, 0], [1, 0, 3, 0, 0]])


def test_clusters_follow_their_class_and_leftover_ones_come_last():
    assert page.cluster_order([[0, 1], [1, -1], [2, 0], [3, 1]], 5) == [
        (2, 0),
        (0, 1),
        (3, 1),
        (1, -1),
        (4, -1),
    ]


def test_confusion_rows_become_shares_in_the_new_column_order():
    shares = page.arrange_confusion(MATRIX, 2, [1, 0, 2])
    np.testing.assert_allclose(
        shares, [[0.8, 0.1, 0, 0, 0.1], [0.2, 0.6, 0.1, 0, 0.1], [0, 0, 1, 0, 0], [0.25, 0, 0, 0.75, 0]]
    )


def test_base_classes_merge_into_one():
    """Rows and columns 1, 2 are base: shares are of the pixels of both together. An absent class stays 0, not NaN."""
    matrix = np.array([[4, 0, 0, 0], [1, 5, 1, 1], [0, 2, 9, 1], [0, 0, 0, 0]])  # B = 2, one novel class, one cluster
    expected = [[1, 0, 0], [1 / 20, 17 / 20, 2 / 20], [0, 0, 0]]
    np.testing.assert_allclose(discovery_chain.collapse_confusion(matrix, 3, [0]), expected)


def test_collapsing_changes_nothing_with_one_base_class():
    np.testing.assert_allclose(
        discovery_chain.collapse_confusion(MATRIX, 2, [2, 0, 1]),
        page.arrange_confusion(MATRIX, 2, [2, 0, 1]),
    )


def test_majority_class_and_its_share():
    objects = [(1, 2), (1, 2), (1, 1), (3, 0), (3, 1)]
    assert discovery_chain.majority_class(objects) == {
        1: (2, pytest.approx(2 / 3)),
        3: (0, 0.5),
    }  # a tie goes to the lower class


def test_split_point():
    assert discovery_chain.split_point([0.1, 0.3], [0.5, 0.9]) == pytest.approx(0.4)
    assert discovery_chain.split_point([0.1], []) is None


EUMS = {"miou": 0.5, "base_miou": 0.6543, "novel_miou": 0.25, "harmonic_miou": 0.36177}
BASE = {"miou": 0.7, "base_miou": 0.61}


def test_all_of_a_base_model_is_left_out():
    """Its mean runs over fewer classes than the others'."""
    assert discovery_table.table_cells(BASE) == ["61.0", "-", "-"]
    assert discovery_table.table_cells(EUMS) == ["65.4", "25.0", "50.0"]
    assert discovery_table.table_cells(None) == ["-", "-", "-"]


def test_the_table_over_runs_leaves_it_out_as_well(tmp_path):
    base, eums = (Stage(tmp_path / name, "ncdss", {}, m) for name, m in (("eval_base", BASE), ("eval_eums", EUMS)))
    assert [discovery_table.TABLE.method(stage) for stage in (base, eums)] == ["base model", "EUMS"]
    assert discovery_table.TABLE.scores(base) == {"base_miou": 0.61} and discovery_table.TABLE.scores(eums) == EUMS


def test_stages_of_other_methods_have_rows(tmp_path):
    """Any stage eval_NAME is a row NAME; other stages have no row."""
    names = {"eval_eums": "EUMS", "eval_basic_oracle": "basic, oracle labels", "eval_mine": "mine", "pseudo": None}
    found = {name: discovery_table.TABLE.method(Stage(tmp_path / name, "ncdss", {}, {})) for name in names}
    assert found == names
    metrics = {"eval_eums": EUMS, "eval_base": BASE, "eval_mine": EUMS, "pseudo": {}}
    chain = discovery_chain.Chain(None, tmp_path, metrics)
    assert list(chain.rows) == [*discovery_table.METHODS, "mine"]
    assert chain.methods == {"EUMS": "eval_eums", "mine": "eval_mine"}
    assert chain.colors["EUMS"] == discovery_chain.METHOD_COLORS["EUMS"] and "mine" in chain.colors
