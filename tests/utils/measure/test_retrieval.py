"""Nearest-neighbour labels: by hand, and the official evaluation written out plainly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.synthetic import scene
from utils.measure.clustering import mask_prototypes
from utils.measure.metrics import confusion_matrix, iou
from utils.measure.probe_metrics import retrieval_metrics
from utils.measure.retrieval import cell_counts, majority_label, nearest, region_confusion

KEPT = (1, 5, 6, 7, 8, 10, 15)
IGNORED = tuple(number for number in range(1, 21) if number not in KEPT)


def test_majority_by_hand():
    counts = np.array([[9, 2, 1, 0], [9, 0, 0, 0], [0, 4, 4, 0], [0, 1, 3, 5]])
    assert majority_label(counts).tolist() == [1, 0, 2, 3]  # background does not count, ties go to the larger class
    assert majority_label(counts, (0, 3)).tolist() == [1, 0, 2, 2]


def test_first_of_equal_neighbours(monkeypatch):
    memory = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    queries = torch.tensor([[0.0, 2], [3, 0], [1, 1], [0, 0]])
    assert nearest(queries, memory).tolist() == [1, 0, 0, 0]
    monkeypatch.setattr("utils.measure.retrieval.BLOCK", 4)  # a row at a time
    assert nearest(queries, memory).tolist() == [1, 0, 0, 0]


def test_cells_by_hand():
    label = torch.tensor([[[1, 1, 2, 255], [1, 0, 2, 2]]], dtype=torch.uint8).repeat_interleave(2, 1)  # 4 x 4
    region = torch.ones(1, 4, 4, dtype=torch.bool)
    region[0, :, 2] = False
    counts = cell_counts(label, region, (2, 2), 3)
    assert counts.tolist() == [[[[0, 4, 0], [0, 0, 0]], [[2, 2, 0], [0, 0, 2]]]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 5))
def test_regions_counted_once_serve_any_numbers(seed, images, classes):
    """Counts per region give the matrix that painting every region and looking at every pixel gives."""
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.choice([*range(classes), 255], (images, 7, 5)).astype(np.uint8))
    region = torch.from_numpy(rng.integers(0, 2, (images, 7, 5)).astype(np.uint8))
    counts = np.stack([confusion_matrix(r, t, 2, classes).numpy() for r, t in zip(region, truth, strict=True)])
    numbers = rng.integers(0, 4, images)
    painted = region * torch.from_numpy(numbers)[:, None, None]
    assert np.array_equal(region_confusion(counts, numbers, 4), confusion_matrix(painted, truth, 4, classes).numpy())


def by_hand(memory, queries, ignored):
    """tp, fp, fn of every class and the labels of the memory, pixel by pixel."""

    def seen(item):
        truth = item.truth().astype(int)
        truth[np.isin(truth, ignored)] = 255
        return item.logit() > 0.5, truth

    labels, vectors = [], []
    for item in memory:
        inside, truth = seen(item)
        values = [int(v) for v in np.unique(truth[inside]) if v not in (0, 255)]
        if values:
            labels.append(max(values, key=lambda v: ((truth[inside] == v).sum(), v)))
            vectors.append(item.prototype())
    hit, false, lost = np.zeros(21), np.zeros(21), np.zeros(21)
    for item in queries:
        inside, truth = seen(item)
        number = labels[int(np.argmax(np.stack(vectors) @ item.prototype()))]
        prediction = np.where(inside, number, 0)
        for c in range(21):
            hit[c] += ((prediction == c) & (truth == c)).sum()
            false[c] += ((prediction == c) & (truth != c) & (truth != 255)).sum()
            lost[c] += ((prediction != c) & (truth == c)).sum()
    return labels, hit, false, lost


@pytest.fixture(scope="module")
def scenes():
    """(scenes, prototypes, counts) of a memory and of queries, as golden case g10 has them, a few of each."""
    parts = []
    for base, chosen in ((30000, (0, 1, 4, 5, 6, 7, 9, 14, 24)), (40000, (0, 5, 6, 9, 14, 24))):
        items = [scene(base, index) for index in chosen]
        counts, vectors = [], []
        for item in items:
            embedding, logit = (torch.from_numpy(values)[None] for values in (item.embedding(), item.logit()))
            weight = torch.where(logit > 0.5, logit, 0)
            vectors.append(mask_prototypes(embedding, weight)[0])
            counts.append(confusion_matrix((weight[0] > 0).byte(), torch.from_numpy(item.truth()), 2, 21).numpy())
        parts.append((items, torch.stack(vectors), np.stack(counts)))
    return parts


def test_prototypes_weigh_pixels_by_their_logit(scenes):
    for items, vectors, _ in scenes:
        exact = np.stack([item.prototype() for item in items])
        np.testing.assert_allclose(vectors, exact, atol=5e-4)
        assert all(not vectors[index].any() for index, item in enumerate(items) if item.empty)


@pytest.mark.parametrize("ignored", [(), IGNORED])
def test_retrieval_equals_the_plain_evaluation(scenes, ignored):
    (memory, known, known_counts), (queries, asked, counts) = scenes
    labels, hit, false, lost = by_hand(memory, queries, ignored)
    found = majority_label(known_counts[:, :, 1], (0, *ignored))
    assert found[found > 0].tolist() == labels
    neighbours = nearest(asked, known[torch.from_numpy(found > 0)]).numpy()
    matrix = region_confusion(counts, np.array(labels)[neighbours], 21)
    metrics = retrieval_metrics(matrix, matrix, [str(number) for number in range(21)], ignored)
    scores = np.divide(hit, hit + false + lost, out=np.zeros(21), where=hit + false + lost > 0)
    if ignored:
        assert metrics["kept_miou"] == pytest.approx(scores[list(KEPT)].mean(), abs=1e-12)
        assert list(metrics["kept_per_class"]) == [str(number) for number in KEPT]
    else:
        assert metrics["miou"] == pytest.approx(scores.mean(), abs=1e-12)
        np.testing.assert_allclose(np.nan_to_num(iou(matrix)), scores, atol=1e-12)
