import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.tasks import load_task
from utils.config.ssul import StepTraining
from utils.incremental import (
    add_unknown,
    cluster_metrics,
    exact_median,
    official_median,
    predicted_ids,
    pseudo_label,
    step_metrics,
    step_settings,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ssul"


# ---- labels


def test_labels_with_unknown_are_those_of_the_official_code():
    arrays = np.load(FIXTURES / "labels.npz")
    compared = 0
    for entry in json.loads((FIXTURES / "labels_index.json").read_text()):
        if not entry["unknown"]:
            continue
        voc = entry["dataset"] == "voc"
        task, step = load_task(entry["task"], "pascal" if voc else "ade"), entry["step"]
        maps = {"memory": task.seen_map(step), "test": task.full_map()}
        label = maps.get(entry["image_set"], task.step_map(step))(arrays[f"{entry['dataset']}_mask"])
        label = torch.from_numpy(label)[None]
        if entry["image_set"] == "train":
            label = add_unknown(label, torch.from_numpy(arrays["voc_saliency"])[None] if voc else None)
        assert np.array_equal(label[0].numpy(), arrays[entry["key"]]), entry
        compared += 1
    assert compared > 10


def test_unknown_by_hand():
    label, salient = torch.tensor([[[0, 0, 1, 3, 255, 255]]]), torch.tensor([[[0, 7, 7, 0, 0, 1]]])
    assert add_unknown(label, salient).tolist() == [[[1, 0, 2, 4, 255, 255]]]
    assert add_unknown(label.to(torch.uint8), None).tolist() == [[[0, 0, 2, 4, 255, 255]]]


def test_pseudo_labels_by_hand():
    """Channels unknown, background, old, new; threshold 0.7. Only vague pixels with a sure old class change."""
    label = torch.tensor([[[0, 1, 1, 0, 3, 255]]])
    best = torch.tensor([[[2, 2, 2, 1, 2, 2]]])
    sure = torch.tensor([[[0.7, 0.9, 0.69, 0.9, 0.9, 0.9]]])
    scores = torch.zeros(1, 3, 1, 6).scatter(1, best[:, None], sure[:, None])
    assert pseudo_label(label, scores, 0.7, last_vague=1).tolist() == [[[2, 2, 1, 0, 3, 255]]]
    plain = pseudo_label(torch.tensor([[[0, 0]]]), torch.tensor([[[[0.9, 0.1]], [[0.1, 0.8]]]]), 0.7, last_vague=0)
    assert plain.tolist() == [[[0, 1]]]


def test_unknown_counts_for_background():
    """Background 0.4 and unknown 0.3 together beat a class of 0.6; apart neither does."""
    scores = torch.tensor([0.3, 0.4, 0.6])
    logits = torch.logit(scores).view(1, 3, 1, 1)
    assert predicted_ids(logits, unknown=True, loss="bce").item() == 0
    assert predicted_ids(logits, unknown=False, loss="bce").item() == 2
    assert predicted_ids(torch.tensor([0.0, 1, 2]).view(1, 3, 1, 1), unknown=True, loss="ce").item() == 1


# ---- medians of PLOP


def test_official_median_within_the_first_bin():
    histogram = np.zeros(100, int)
    histogram[:2] = 8, 2  # half of ten is reached after 5/8 of the first bin
    assert official_median(histogram) == pytest.approx(5 / 8 / 100)


def test_official_median_adds_bin_numbers():
    """Ten in bin 3: after bins 0, 1, 2 the running sum is 0 + 1 + 2, so half of ten is 2 of 10 into the bin."""
    histogram = np.zeros(100, int)
    histogram[3] = 10
    assert official_median(histogram) == pytest.approx(3 / 100 + 2 / 10 / 100)


def test_official_median_without_a_bin_is_infinite():
    histogram = np.full(100, 1000)
    histogram[99] = 0
    assert official_median(histogram) == float("inf")


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=50))
def test_exact_median_is_the_median_up_to_a_bin(values):
    histogram = np.histogram(values, bins=1000, range=(0, 1))[0]
    ordered = sorted(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    assert low - 2e-3 <= exact_median(histogram, 1.0) <= high + 2e-3


# ---- metrics and settings


def test_groups_of_classes():
    """Four classes seen, two of them (with background) in step 0; IoU 1, 1/2, 1/3 and nothing for the last."""
    matrix = torch.tensor([[6, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    metrics = step_metrics(matrix, ["background", "a", "b", "c"], num_first=2)
    assert metrics["old_miou"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["new_miou"] == pytest.approx((1 / 3 + 0) / 2)
    assert metrics["miou"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert metrics["foreground_miou"] == pytest.approx((1 / 2 + 1 / 3) / 3)
    first = step_metrics(matrix[:2, :2], ["background", "a"], num_first=2)
    assert "new_miou" not in first


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "length", "every"),
    [(9568, 50, 32, 299, 149), (487, 50, 32, 15, 100), (20, 50, 32, 1, 100)],
)
def test_validation_of_the_official_code(images, epochs, batch, length, every):
    settings = StepTraining(epochs=epochs, batch_size=batch)
    made = step_settings(settings, "official", images)
    assert (made.iters_per_epoch, made.eval_steps) == (length, every)
    assert step_settings(settings, "last", images).eval_steps == epochs * length


def test_clusters_are_matched_one_to_one_and_classes_without_one_left_out():
    """Background, a known class, x, y; one cluster so far, which is y: x and its pixels do not count."""
    matrix = torch.tensor([[6, 1, 1], [0, 4, 0], [9, 0, 2], [1, 0, 5]])
    names = ["background", "a", "x", "y"]
    metrics = cluster_metrics(matrix, names, num_first=2, absent="zero", complete=False)
    assert metrics["match"] == [[0, 1]]
    assert metrics["per_class"] == pytest.approx({"background": 6 / 9, "a": 4 / 5, "y": 5 / 7})
    assert metrics["old_miou"] == pytest.approx((6 / 9 + 4 / 5) / 2) and metrics["new_miou"] == pytest.approx(5 / 7)
    last = cluster_metrics(matrix, names, num_first=2, absent="zero", complete=True)
    assert last["per_class"] == pytest.approx({"background": 6 / 18, "a": 4 / 5, "x": 0, "y": 5 / 9})


def test_more_clusters_than_classes_are_merged():
    matrix = torch.tensor([[5, 0, 1, 0], [0, 3, 0, 4], [0, 0, 4, 0]])
    metrics = cluster_metrics(matrix, ["background", "x", "y"], num_first=1, absent="zero", complete=True)
    assert metrics["match"] == [[0, 0], [1, 1], [2, 0]]
    assert metrics["per_class"] == pytest.approx({"background": 5 / 6, "x": 7 / 7, "y": 4 / 5})
