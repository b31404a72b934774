"""Pixel accuracy, mean accuracy and mIoU of seen and unseen classes as the official evaluator has them."""

import json
from pathlib import Path

import numpy as np
import pytest

from utils.measure.metrics import summarize
from utils.measure.spec import Spec, confusion_metrics

CASES = json.loads((Path(__file__).parents[2] / "fixtures/zeroshot/metrics.json").read_text())


def matrix(case) -> np.ndarray:
    """The confusion that the fixture's recipe draws (tests/fixtures/zeroshot/README.md)."""
    r, c = np.random.RandomState(case["seed"]), case["n_class"]
    truth = r.randint(0, c, (4, 16, 20))
    truth[np.isin(truth, case["absent"])] = 0
    noise = r.randint(0, c, (4, 16, 20))
    found = np.where(r.rand(4, 16, 20) < 0.6, truth, noise)
    truth[r.rand(4, 16, 20) < 0.1] = 255
    kept = truth != 255
    return np.bincount(truth[kept] * c + found[kept], minlength=c * c).reshape(c, c)


@pytest.mark.parametrize("name", CASES)
def test_the_official_numbers(name):
    case = CASES[name]
    names = [str(number) for number in range(case["n_class"])]
    groups = {"seen": [c for c in range(case["n_class"]) if c not in case["unseen"]], "unseen": case["unseen"]}
    metrics = confusion_metrics(matrix(case), Spec(names, len(names), groups))
    for key, ours, of_group in (
        ("PA", "pixel_accuracy", "pixel_accuracy"),
        ("MA", "mean_accuracy", "accuracy"),
        ("mIoU", "miou", "miou"),
    ):
        found = [metrics[ours], metrics[f"seen_{of_group}"], metrics[f"unseen_{of_group}"]]
        assert found == pytest.approx(case[key], rel=1e-9), key
    assert [v or 0.0 for v in metrics["per_class"].values()] == pytest.approx(case["IoU_by_class"], rel=1e-9)
    assert metrics["harmonic_miou"] == pytest.approx(case["hIoU_formula"], rel=1e-9)


def test_a_class_that_no_pixel_is_of_counts_as_zero_or_not_at_all():
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    groups = {"a": [0, 1], "b": [2]}
    zero, skip = (summarize(counts, list("xyz"), groups, absent) for absent in ("zero", "skip"))
    assert (zero["a_pixel_accuracy"], zero["b_pixel_accuracy"]) == (0.75, 0.5)
    assert zero["a_accuracy"] == pytest.approx(0.75 / 2) and zero["b_accuracy"] == 0.5
    assert zero["mean_accuracy"] == pytest.approx((0.75 + 0 + 0.5) / 3)
    assert skip["a_accuracy"] == 0.75 and skip["mean_accuracy"] == pytest.approx(1.25 / 2)
    nothing = summarize(counts, list("xyz"), {"c": [1]}, "skip")
    assert nothing["c_accuracy"] is None and nothing["c_pixel_accuracy"] is None
