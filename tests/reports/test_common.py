"""What pages share."""

import json

import numpy as np
import pytest
import scipy.io

from data.io import read_label, write_label, write_picture
from data.layouts import LAYOUTS, Sample
from reports import common
from utils.checkpoint import read_list
from utils.errors import UserError


def test_images_are_picked_by_class_and_size_only(voc):
    views_of = {
        name: read_label(voc / "SegmentationClassAug" / f"{name}.png") for name in read_list(voc / "sets/val.txt")
    }
    samples = [Sample(name, voc / "x", label=voc / "SegmentationClassAug" / f"{name}.png") for name in views_of]
    picked = [sample.id for sample in common.pick_images(samples, (3, 4), 5)]
    assert picked == ["v002", "v003", "v006", "v007", "v010"]  # bar, dot, bar, dot, bar: classes 3 and 4 in turn
    assert [s.id for s in common.pick_images(samples[:2], (3, 4), 5)] == ["v000", "v001"]  # no novel object at all


def test_images_with_a_base_class_come_first(tmp_path):
    labels = []
    for number, classes in enumerate(([3], [3, 1], [4], [3, 2], [4, 1])):
        label = np.zeros((20, 20), np.uint8)
        for place, value in enumerate(classes):
            label[2:8, 1 + 9 * place : 8 + 9 * place] = value
        write_label(tmp_path / f"{number}.png", label)
        labels.append(Sample(str(number), tmp_path / "x", label=tmp_path / f"{number}.png"))
    assert [sample.id for sample in common.pick_images(labels, (3, 4), 3)] == ["1", "4", "3"]


def test_masks_are_read_as_the_layout_has_them(tmp_path):
    image, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    mask[2:12, 2:12] = 3
    write_picture(tmp_path / "a.jpg", image)
    scipy.io.savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": mask}})
    write_label(tmp_path / "a.png", mask)
    sbd = Sample("a", tmp_path / "a.jpg", label=tmp_path / "a.mat", read_label=LAYOUTS["sbd"].read_label)
    assert np.array_equal(sbd.load_label(), mask)
    assert common.pick_images([sbd], (3,), 1) == [sbd]
    names = ["background", "x", "y", "bar"]
    (column,), rows = common.prediction_columns([sbd], {"ours": tmp_path}, names, {3})
    assert rows == ["image", "ground truth", "ours"]
    assert np.array_equal(column[1], column[2])  # the truth and the same map as a prediction


def test_classes_beyond_8_bits_are_picked(tmp_path):
    samples = []
    for name, value in (("a", 7), ("b", 300)):
        mask = np.full((20, 20), 65535, np.uint16)
        mask[2:12, 2:12] = value
        write_label(tmp_path / f"{name}.png", mask)
        samples.append(Sample(name, tmp_path / "x", label=tmp_path / f"{name}.png"))
    assert common.pick_images(samples, (300,), 1) == [samples[1]]


def test_images_without_wanted_classes_are_the_first(voc):
    samples = [Sample(str(number), voc / "x") for number in range(3)]
    assert common.pick_images(samples, [], 2) == samples[:2]


@pytest.fixture
def trained(tmp_path):
    """A stage whose history has two losses, their sum, an accuracy, and a score."""
    lines = [{"step": s, "epoch": s, "train": {"a": 1 / s, "b": 2.0, "loss": 3.0, "top": 0.5}} for s in (1, 2)]
    lines.append({"step": 2, "epoch": 2, "val": {"miou": 0.25}})
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_losses_without_their_sum(trained):
    ((name, chart),) = common.loss_charts({"base": trained, "nothing": trained / "none"}, leave_out=["top"])
    assert name == "base" and chart.count("<polyline") == 2 and ">a</span>" in chart and ">loss" not in chart


def test_losses_of_given_colours_need_no_legend_of_their_own(trained):
    colors = {"first": "#111111", "b": "#222222"}
    ((_, chart),) = common.loss_charts({"base": trained}, colors, {"a": "first"}, leave_out=["top"])
    assert "legend" not in chart and 'stroke="#111111"' in chart and 'stroke="#222222"' in chart
    ((_, chart),) = common.loss_charts({"base": trained}, {"b": "#222222"}, leave_out=["top"])
    assert "legend" in chart and 'stroke="#222222"' in chart


def test_a_single_loss_may_be_called_loss(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1, "epoch": 1, "train": {"loss": 1.0}}\n')
    assert len(common.loss_charts({"x": tmp_path})) == 1


def test_scores_of_the_stages_that_have_some(trained):
    assert common.score_curves({"one": trained, "other": trained / "none"}, "miou") == {"one": [(2, 0.25)]}


def test_bars_of_classes_and_their_mean():
    metrics = {"ours": {"per_class": {"cat": 0.25, "dog": None}, "miou": 0.125}}
    texts = common.class_bars(metrics, ["cat", "dog", "cow"], {"ours": "#111111"}, "miou")
    assert [text in texts for text in (">25.0<", ">-<", ">12.5<", ">mean<", ">cow<")] == [True] * 5


def test_a_section_without_data_tells_why():
    def fail() -> str:
        raise UserError("data.root=/none: no such folder")

    text = common.or_reason("Pictures", fail)
    assert "Pictures" in text and "cannot be read: data.root=/none: no such folder" in text
    assert common.or_reason("Pictures", lambda: "fine") == "fine"
