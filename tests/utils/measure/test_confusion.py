"""Predictions against masks at the masks' own size."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from data.dataset import SegmentationDataset
from data.io import read_label, write_label
from data.label_map import LabelMap
from data.layouts import Sample
from data.transforms import ValTransform
from utils.measure.confusion import image_confusion
from utils.measure.metrics import summarize

SIDE, CLASSES = 128, 21


def scored_image(index: int) -> tuple[np.ndarray, np.ndarray]:
    """(logits [21, 128, 128], truth at image size) of golden case g8: classes 18 and 19 occur nowhere."""
    r = np.random.RandomState(600 + index)
    height, width = r.randint(90, 200), r.randint(90, 200)
    truth = np.zeros((height, width), np.uint8)
    for _ in range(3):
        y, x = r.randint(0, height - 30), r.randint(0, width - 30)
        rows, columns = r.randint(20, height // 2), r.randint(20, width // 2)
        truth[y : y + rows, x : x + columns] = r.randint(1, 16)
    truth[:, width // 2 : width // 2 + 2] = 255
    places = [((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in truth.shape]
    small = truth[np.ix_(*places)]
    logits = (r.randn(CLASSES, 16, 16) * 1.2).repeat(8, 1).repeat(8, 2).astype(np.float32)
    number = np.where(small == 255, 0, small).astype(int)
    logits[number, np.arange(SIDE)[:, None], np.arange(SIDE)] += 3
    logits[[18, 19]] = -100
    return logits, truth


@pytest.fixture
def dataset(tmp_path):
    samples = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        write_label(path, scored_image(index)[1])
        samples.append(Sample(str(index), image=path, label=path))
    numbers = LabelMap.from_pairs({number: number for number in range(CLASSES)})
    return SegmentationDataset(samples, ("image",), transform=ValTransform(SIDE), label_map=numbers)


def test_scores_at_image_size_equal_the_plain_evaluation(dataset, tmp_path):
    """Nearest-neighbour predictions; IoU of each class from hits, false and lost pixels; absent classes count 0."""
    maps = np.stack([scored_image(index)[0].argmax(0).astype(np.uint8)[None] for index in range(6)])
    matrices = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    hit, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for index in range(6):
        truth = scored_image(index)[1]
        rows, columns = ((np.arange(n) * (1 / (n / SIDE))).astype(int) for n in truth.shape)  # rounded as OpenCV does
        large = maps[index, 0][np.ix_(rows, columns)]
        save = partial(write_label, tmp_path / "predictions" / f"{index}.png")
        counts = image_confusion(dataset.native(index), maps[index], CLASSES, CLASSES, save=save)
        assert counts.shape == (1, CLASSES, CLASSES)
        matrices += counts[0]
        assert np.array_equal(read_label(tmp_path / "predictions" / f"{index}.png"), large)
        for c in range(CLASSES):
            hit[c] += ((large == c) & (truth == c)).sum()
            union[c] += (((large == c) & (truth != 255)) | (truth == c)).sum()
    scores = np.divide(hit, union, out=np.zeros(CLASSES), where=union > 0)
    metrics = summarize(matrices, [str(c) for c in range(CLASSES)], {})
    assert metrics["miou"] == pytest.approx(scores.mean(), abs=1e-12) and scores[18] == scores[19] == 0
    assert metrics["per_class"]["18"] is None and metrics["per_class"]["3"] == pytest.approx(scores[3])


def test_several_predictions_of_an_image():
    """Maps of image size are taken as they are, two at a time; two labels only make a count per region."""
    truth = [scored_image(index)[1] for index in (2, 4)]
    inside = [cv2.resize(t, t.shape[::-1]) % 2 for t in truth]
    maps = [np.stack([m, 1 - m]).astype(np.uint8) for m in inside]
    counts = torch.stack([image_confusion(t, m, CLASSES, 2) for t, m in zip(truth, maps, strict=True)])
    assert counts.shape == (2, 2, CLASSES, 2)
    for place, (t, m) in enumerate(zip(truth, inside, strict=True)):
        expected = np.bincount(t[(m == 1) & (t != 255)], minlength=CLASSES)
        assert counts[place, 0, :, 1].tolist() == counts[place, 1, :, 0].tolist() == expected.tolist()


def test_labels_of_more_than_eight_bits():
    """Predictions of 600 clusters keep their numbers; the truth stays what it is."""
    truth = scored_image(1)[1]
    maps = np.where(truth == 255, 0, truth.astype(np.int32) + 500)[None]
    counts = image_confusion(truth, maps, CLASSES, 600)[0]
    expected = np.bincount(truth.ravel(), minlength=256)[:CLASSES]
    assert counts[range(CLASSES), range(500, 500 + CLASSES)].tolist() == expected.tolist()
    assert counts.sum() == expected.sum()
