"""Metrics of every system from a matrix and a spec, worked out by hand."""

from dataclasses import replace

import pytest
import torch

from utils.measure.spec import Spec, confusion_metrics


def steps(names: list[str], first: int) -> Spec:
    """Old classes up to `first`, new ones behind; foreground is all but background."""
    groups = {"old": range(first), "new": range(first, len(names))}
    kept = {name: rows for name, rows in groups.items() if rows}
    return Spec(names, len(names), kept, unions={"foreground": range(1, len(names))})


def clusters(names: list[str], first: int, outputs: int, complete: bool = True) -> Spec:
    return replace(steps(names, first), num_outputs=outputs, num_known=first, partial=True, complete=complete)


def test_groups_of_classes():
    """Four classes seen, two of them (with background) in step 0; IoU 1, 1/2, 1/3 and nothing for the last."""
    matrix = torch.tensor([[6, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    metrics = confusion_metrics(matrix, steps(["background", "a", "b", "c"], 2))
    assert metrics["old_miou"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["new_miou"] == pytest.approx((1 / 3 + 0) / 2)
    assert metrics["miou"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert metrics["foreground_miou"] == pytest.approx((1 / 2 + 1 / 3) / 3)
    first = confusion_metrics(matrix[:2, :2], steps(["background", "a"], 2))
    assert "new_miou" not in first


def test_clusters_are_matched_one_to_one_and_classes_without_one_left_out():
    """Background, a known class, x, y; one cluster so far, which is y: x and its pixels do not count."""
    matrix = torch.tensor([[6, 1, 1], [0, 4, 0], [9, 0, 2], [1, 0, 5]])
    names = ["background", "a", "x", "y"]
    metrics = confusion_metrics(matrix, clusters(names, 2, 3, complete=False))
    assert metrics["match"] == [[0, 1]]
    assert metrics["per_class"] == pytest.approx({"background": 6 / 9, "a": 4 / 5, "y": 5 / 7})
    assert metrics["old_miou"] == pytest.approx((6 / 9 + 4 / 5) / 2) and metrics["new_miou"] == pytest.approx(5 / 7)
    last = confusion_metrics(matrix, clusters(names, 2, 3))
    assert last["per_class"] == pytest.approx({"background": 6 / 18, "a": 4 / 5, "x": 0, "y": 5 / 9})


def test_more_clusters_than_classes_are_merged():
    matrix = torch.tensor([[5, 0, 1, 0], [0, 3, 0, 4], [0, 0, 4, 0]])
    metrics = confusion_metrics(matrix, clusters(["background", "x", "y"], 1, 4))
    assert metrics["match"] == [[0, 0], [1, 1], [2, 0]]
    assert metrics["per_class"] == pytest.approx({"background": 5 / 6, "x": 7 / 7, "y": 4 / 5})


def test_discovered_classes_are_matched_at_one_size_and_counted_at_another():
    """Two novel classes, two clusters: the coarse matrix says crosswise, and so the fine one is read."""
    spec = Spec(["background", "x", "y"], 3, {"base": [0], "novel": [1, 2]}, num_known=1)
    coarse = torch.tensor([[1, 0, 0], [0, 0, 9], [0, 9, 0]])
    fine = torch.tensor([[4, 0, 0], [0, 3, 1], [0, 2, 2]])
    metrics = confusion_metrics(fine, spec, coarse)
    assert metrics["match"] == [[0, 1], [1, 0]]
    assert metrics["per_class"] == pytest.approx({"background": 1, "x": 1 / 6, "y": 2 / 7})
    assert metrics["novel_miou"] == pytest.approx((1 / 6 + 2 / 7) / 2)
    assert confusion_metrics(fine, spec)["match"] == [[0, 0], [1, 1]]


def test_the_rule_can_be_replaced():
    spec = Spec(["background", "x", "y"], 4, {"base": [0], "novel": [1, 2]}, num_known=1)  # three clusters
    matrix = torch.tensor([[1, 0, 0, 0], [0, 5, 4, 0], [0, 0, 0, 3]])
    assert confusion_metrics(matrix, spec)["match"] == [[0, 0], [1, 0], [2, 1]]
    assert confusion_metrics(matrix, spec, rule="one_to_one")["match"] == [[0, 0], [1, -1], [2, 1]]


def test_ways_of_matching_that_are_defined():
    spec = Spec(["background", "x", "y"], 4, num_known=1)  # three clusters for two classes
    assert spec.rules == ("official", "one_to_one")
    assert replace(spec, match="many_to_one").rules == ("many_to_one", "official", "one_to_one")
    few = replace(spec, num_outputs=2, match="many_to_one")
    assert few.rules == ("many_to_one", "one_to_one")
    assert replace(spec, partial=True).rules == Spec(["background", "x"], 2).rules == ()


def test_a_class_without_a_cluster_counts_as_zero():
    """One cluster for x and y: it is x, and all pixels of y are errors."""
    spec = Spec(["background", "x", "y"], 2, {"novel": [1, 2]}, num_known=1, match="many_to_one")
    metrics = confusion_metrics(torch.tensor([[6, 0], [0, 4], [1, 3]]), spec)
    assert metrics["match"] == [[0, 0]]
    assert metrics["per_class"] == pytest.approx({"background": 6 / 7, "x": 4 / 7, "y": 0})
    assert metrics["novel_miou"] == pytest.approx(2 / 7)


def test_simformers_means_leave_out_classes_of_a_group_that_are_only_predicted():
    """Classes a, b (base), x, y, z (novel): z is nowhere, y only predicted, on two pixels of b."""
    matrix = torch.tensor([[6, 0, 0, 0, 0], [0, 2, 0, 2, 0], [1, 0, 1, 0, 0], [0] * 5, [0] * 5])
    groups = {"base": [0, 1], "novel": [2, 3, 4]}
    metrics = confusion_metrics(matrix, Spec(["a", "b", "x", "y", "z"], 5, groups, absent="labelled"))
    base = (6 / 7 + 2 / 4) / 2
    assert metrics["base_miou"] == metrics["base_miou_strict"] == pytest.approx(base)
    assert metrics["novel_miou"] == pytest.approx(1 / 2) and metrics["novel_miou_strict"] == pytest.approx(1 / 4)
    assert metrics["miou"] == pytest.approx((6 / 7 + 2 / 4 + 1 / 2 + 0) / 4)  # over a, b, x and y
    assert metrics["harmonic_miou"] == pytest.approx(2 * base * 0.5 / (base + 0.5))
    assert metrics["harmonic_miou_strict"] == pytest.approx(2 * base * 0.25 / (base + 0.25))
    assert metrics["mean_accuracy"] == pytest.approx((1 + 2 / 4 + 1 / 2) / 3)
    assert metrics["novel_accuracy"] == pytest.approx(1 / 2)
    assert metrics["pixel_accuracy"] == pytest.approx(9 / 12)
    assert metrics["fw_iou"] == pytest.approx((6 * 6 / 7 + 4 * 2 / 4 + 2 * 1 / 2) / 12)
    assert metrics["per_class"]["y"] == 0 and metrics["per_class"]["z"] is None
    plain = confusion_metrics(matrix, Spec(["a", "b", "x", "y", "z"], 5, groups, absent="zero"))
    assert plain["novel_miou"] == pytest.approx(1 / 6) and "novel_miou_strict" not in plain
