"""The sections that pages share."""

import json

import numpy as np
import pytest
import scipy.io

from data.gallery import pick_images
from data.io import write_label, write_picture
from data.layouts import LAYOUTS, Sample
from reports import page
from utils.errors import UserError


def test_masks_are_read_as_the_layout_has_them(tmp_path):
    image, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    mask[2:12, 2:12] = 3
    write_picture(tmp_path / "a.jpg", image)
    scipy.io.savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": mask}})
    write_label(tmp_path / "a.png", mask)
    sbd = Sample("a", tmp_path / "a.jpg", label=tmp_path / "a.mat", read_label=LAYOUTS["sbd"].read_label)
    assert np.array_equal(sbd.load_label(), mask)
    assert pick_images([sbd], (3,), 1) == [sbd]
    names = ["background", "x", "y", "bar"]
    (column,), rows = page.prediction_columns([sbd], {"ours": tmp_path}, names, {3})
    assert rows == ["image", "ground truth", "ours"]
    assert np.array_equal(column[1], column[2])  # the truth and the same map as a prediction


@pytest.fixture
def trained(tmp_path):
    """A stage whose history has two losses, their sum, an accuracy, and a score."""
    lines = [{"step": s, "epoch": s, "train": {"a": 1 / s, "b": 2.0, "loss": 3.0, "top": 0.5}} for s in (1, 2)]
    lines.append({"step": 2, "epoch": 2, "val": {"miou": 0.25}})
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_losses_without_their_sum(trained):
    ((name, chart),) = page.loss_charts({"base": trained, "nothing": trained / "none"}, leave_out=["top"])
    assert name == "base" and chart.count("<polyline") == 2 and ">a</span>" in chart and ">loss" not in chart


def test_losses_of_given_colours_need_no_legend_of_their_own(trained):
    colors = {"first": "#111111", "b": "#222222"}
    ((_, chart),) = page.loss_charts({"base": trained}, colors, {"a": "first"}, leave_out=["top"])
    assert "legend" not in chart and 'stroke="#111111"' in chart and 'stroke="#222222"' in chart
    ((_, chart),) = page.loss_charts({"base": trained}, {"b": "#222222"}, leave_out=["top"])
    assert "legend" in chart and 'stroke="#222222"' in chart


def test_a_single_loss_may_be_called_loss(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1, "epoch": 1, "train": {"loss": 1.0}}\n')
    assert len(page.loss_charts({"x": tmp_path})) == 1


def test_scores_of_the_stages_that_have_some(trained):
    assert page.score_curves({"one": trained, "other": trained / "none"}, "miou") == {"one": [(2, 0.25)]}


def test_bars_of_classes_and_their_mean():
    metrics = {"ours": {"per_class": {"cat": 0.25, "dog": None}, "miou": 0.125}}
    texts = page.class_bars(metrics, ["cat", "dog", "cow"], {"ours": "#111111"}, "miou")
    assert [text in texts for text in (">25.0<", ">-<", ">12.5<", ">mean<", ">cow<")] == [True] * 5


def test_a_section_without_data_tells_why():
    def fail() -> str:
        raise UserError("data.root=/none: no such folder")

    text = page.or_reason("Pictures", fail)
    assert "Pictures" in text and "cannot be read: data.root=/none: no such folder" in text
    assert page.or_reason("Pictures", lambda: "fine") == "fine"
