"""Metrics of clusterings by hand and against the official evaluation written out plainly."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from tests.synthetic import scene
from utils.measure.clustering import fit_minibatch
from utils.measure.metrics import confusion_matrix
from utils.measure.probe_metrics import clustering_metrics, retrieval_metrics
from utils.measure.retrieval import region_confusion

GOLDEN = Path(__file__).parents[2] / "fixtures" / "contrast" / "g7_kmeans_eval.json"
NAMES = [f"class{number}" for number in range(21)]


def test_two_seeds_by_hand():
    """Background 8 of 10 right, the class 4 of 6: the other seed names its clusters the other way round."""
    matrix = np.array([[8, 2], [2, 4]])
    metrics = clustering_metrics({5: matrix, 6: matrix[:, ::-1], 7: np.array([[10, 0], [0, 6]])}, ["ground", "thing"])
    first = (8 / 12 + 4 / 8) / 2
    assert metrics["miou"] == pytest.approx((2 * first + 1) / 3)
    assert metrics["miou_std"] == pytest.approx(np.std([first, first, 1], ddof=1))
    assert metrics["per_class"] == pytest.approx({"ground": (16 / 12 + 1) / 3, "thing": (8 / 8 + 1) / 3})
    assert metrics["match"] == [[0, 0], [1, 1]] and metrics["seeds"][1]["match"] == [[0, 1], [1, 0]]
    assert [run["seed"] for run in metrics["seeds"]] == [5, 6, 7]
    assert clustering_metrics({5: matrix}, ["ground", "thing"])["miou_std"] is None


@pytest.fixture(scope="module")
def scenes():
    """40 images of golden case g7: their masks at image size, and the truth there."""
    found = []
    for index in range(40):
        item = scene(20000, index)
        truth = item.native_truth()
        inside = (item.logit() > 0.5).astype(np.uint8)
        inside = cv2.resize(inside, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        found.append((inside, truth))
    return found


def regions(scenes) -> np.ndarray:
    """Pixels of each class outside and inside the object of each scene, int64 [N, 21, 2]."""
    return np.stack([confusion_matrix(torch.from_numpy(m), torch.from_numpy(t), 2, 21).numpy() for m, t in scenes])


@pytest.mark.parametrize(
    ("case", "before"), [("hungarian_21", (0.7135808, 0.8380175)), ("majority_31", (0.6860, 0.8379))]
)
def test_scores_equal_the_official_ones(scenes, case, before):
    """NMI and ARI behind matching are the official figures; with a cluster for each class they are those before it."""
    golden = json.loads(GOLDEN.read_text())
    expected, numbers = golden["results"][case], 1 + np.arange(len(scenes)) % 30
    if case == "hungarian_21":
        numbers = 1 + np.array(golden["assignment_21"])
    assert [int((scene(20000, i).logit() > 0.5).sum()) for i in range(len(scenes))] == golden["fg_pixels"]
    matrix = region_confusion(regions(scenes), numbers, expected["n_clusters"])
    metrics = clustering_metrics({1: matrix}, NAMES)
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx(expected["acc"], abs=1e-6)
    assert metrics["nmi_after_match"] == pytest.approx(expected["nmi"], abs=1e-6)
    assert metrics["ari_after_match"] == pytest.approx(expected["ari"], abs=1e-6)
    assert (metrics["nmi_before_match"], metrics["ari_before_match"]) == pytest.approx(before, abs=5e-5)


def test_agreement_before_and_behind_matching_by_hand():
    """Two clusters are the two halves of one class: behind matching they are one, and all agrees."""
    metrics = clustering_metrics({1: np.array([[4, 0, 0], [0, 2, 2]])}, ["ground", "thing"])
    assert metrics["nmi_after_match"] == pytest.approx(1) and metrics["ari_after_match"] == pytest.approx(1)
    log2 = np.log(2)  # entropies: classes log 2, clusters 1/2 log 2 + 1/2 log 4 = 3/2 log 2; shared: log 2
    assert metrics["nmi_before_match"] == pytest.approx(log2 / ((log2 + 1.5 * log2) / 2))
    # pairs in one cluster and class 6 + 1 + 1; by cluster 8, by class 12, of 28: (8 - 96/28) / (10 - 96/28)
    assert metrics["ari_before_match"] == pytest.approx((8 - 96 / 28) / (10 - 96 / 28))
    left = clustering_metrics({1: np.array([[4, 0, 0], [0, 2, 2]])}, ["ground", "thing"], "one_to_one")
    assert left["nmi_after_match"] == left["nmi_before_match"]  # the cluster without a class stays separate


@pytest.mark.parametrize("clusters", [21, 31])
def test_scores_equal_the_plain_evaluation(scenes, clusters):
    """All pixels in one list, every cluster against every class; Hungarian for 21, the best class of each else."""
    numbers = [1 + (3 * index if clusters == 21 else index) % (clusters - 1) for index in range(len(scenes))]
    scenes = [tuple(np.ascontiguousarray(values[::5, ::5]) for values in pair) for pair in scenes]
    metrics = clustering_metrics({1: region_confusion(regions(scenes), np.array(numbers), clusters)}, NAMES)

    predicted = np.concatenate([(m * n)[t != 255] for (m, t), n in zip(scenes, numbers, strict=True)])
    truth = np.concatenate([t[t != 255] for _, t in scenes])
    overlap = np.zeros((clusters, 21))
    for cluster in np.unique(predicted):
        own = predicted == cluster
        for c in range(21):
            overlap[cluster, c] = (own & (truth == c)).sum() / max(1, (own | (truth == c)).sum())
    if clusters == 21:
        rows, columns = linear_sum_assignment(-overlap)
        match = dict(zip(rows, columns, strict=True))
    else:
        match = dict(enumerate(overlap.argmax(1)))
    named = np.array([match[cluster] for cluster in range(clusters)])[predicted]
    scores = [((named == c) & (truth == c)).sum() / max(1, ((named == c) | (truth == c)).sum()) for c in range(21)]
    assert metrics["miou"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert [value or 0 for value in metrics["per_class"].values()] == pytest.approx(scores, abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx((named == truth).mean())
    for when, labels in (("before", predicted), ("after", named)):
        assert metrics[f"ari_{when}_match"] == pytest.approx(adjusted_rand_score(truth, labels), abs=1e-9)
        assert metrics[f"nmi_{when}_match"] == pytest.approx(normalized_mutual_info_score(truth, labels), abs=1e-9)


def test_whitening_finds_the_classes():
    """Prototypes whose largest direction is independent of the class: the published steps still separate them."""
    scenes = [found for index in range(200) if not (found := scene(50000, index)).empty]
    vectors = np.stack([found.prototype() for found in scenes]).astype(np.float32)
    classes = [found.number for found in scenes]

    def quality(whiten: bool) -> float:
        found = [fit_minibatch(vectors, 20, pca_dim=32, whiten=whiten, seed=seed) for seed in range(1234, 1239)]
        return float(np.mean([adjusted_rand_score(classes, one.kmeans.labels_) for one in found]))

    assert quality(True) >= 0.88 and quality(False) < 0.6


def test_retrieval_without_ignored_classes():
    whole = np.array([[5, 0, 1], [1, 3, 0], [0, 2, 2]])
    kept = np.array([[5, 1, 0], [1, 3, 0], [0, 4, 0]])  # class 2 is in no memory
    metrics = retrieval_metrics(whole, kept, ["ground", "a", "b"], [2])
    assert metrics["kept_miou"] == pytest.approx(
        3 / 5
    )  # 3 of the 4 true and the 1 false; those on class 2 do not count
    assert metrics["kept_per_class"] == {"a": pytest.approx(3 / 5)}
    assert metrics["miou"] == pytest.approx((5 / 7 + 3 / 6 + 2 / 5) / 3)
    assert "kept_miou" not in retrieval_metrics(whole, None, ["ground", "a", "b"], [])
