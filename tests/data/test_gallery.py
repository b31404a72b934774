"""The images of galleries are chosen by their labels."""

import numpy as np

from data.gallery import pick_images
from data.io import read_label, write_label
from data.layouts import Sample
from utils.checkpoint import read_list


def test_images_are_picked_by_class_and_size_only(voc):
    views_of = {
        name: read_label(voc / "SegmentationClassAug" / f"{name}.png") for name in read_list(voc / "sets/val.txt")
    }
    samples = [Sample(name, voc / "x", label=voc / "SegmentationClassAug" / f"{name}.png") for name in views_of]
    picked = [sample.id for sample in pick_images(samples, (3, 4), 5)]
    assert picked == ["v002", "v003", "v006", "v007", "v010"]  # bar, dot, bar, dot, bar: classes 3 and 4 in turn
    assert [s.id for s in pick_images(samples[:2], (3, 4), 5)] == ["v000", "v001"]  # no novel object at all


def test_images_with_a_base_class_come_first(tmp_path):
    labels = []
    for number, classes in enumerate(([3], [3, 1], [4], [3, 2], [4, 1])):
        label = np.zeros((20, 20), np.uint8)
        for place, value in enumerate(classes):
            label[2:8, 1 + 9 * place : 8 + 9 * place] = value
        write_label(tmp_path / f"{number}.png", label)
        labels.append(Sample(str(number), tmp_path / "x", label=tmp_path / f"{number}.png"))
    assert [sample.id for sample in pick_images(labels, (3, 4), 3)] == ["1", "4", "3"]


def test_classes_beyond_8_bits_are_picked(tmp_path):
    samples = []
    for name, value in (("a", 7), ("b", 300)):
        mask = np.full((20, 20), 65535, np.uint16)
        mask[2:12, 2:12] = value
        write_label(tmp_path / f"{name}.png", mask)
        samples.append(Sample(name, tmp_path / "x", label=tmp_path / f"{name}.png"))
    assert pick_images(samples, (300,), 1) == [samples[1]]


def test_images_without_wanted_classes_are_the_first(voc):
    samples = [Sample(str(number), voc / "x") for number in range(3)]
    assert pick_images(samples, [], 2) == samples[:2]
