import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from utils.measure.matching import apply_match, match_all, match_clusters, rules_for
from utils.measure.metrics import confusion_matrix, confusion_of_step, iou, partition_scores, summarize
from utils.measure.spec import Spec, confusion_metrics

NUM_KNOWN = 3  # background and two base classes
GROUPS = {"base": [1, 2], "novel": [3, 4]}


def pixels(seed: int, num_pred: int, num_true: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that agree with the labels half of the time; some labels are ignored."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_true, count)
    pred = np.where(rng.random(count) < 0.5, label, rng.integers(0, num_pred, count))
    return pred, np.where(rng.random(count) < 0.1, 255, label)


def matrix_of(pred: np.ndarray, label: np.ndarray, num_pred: int, num_true: int) -> np.ndarray:
    return confusion_matrix(torch.from_numpy(pred), torch.from_numpy(label), num_pred, num_true).numpy()


def matches_by_masks(pred: np.ndarray, label: np.ndarray, num_clusters: int, num_novel: int) -> np.ndarray:
    """IoU of every cluster (column) and class (row) as the official code takes it: one pair of masks at a time."""
    keep = (label != 255) & (label >= NUM_KNOWN) & (pred >= NUM_KNOWN)
    pred, label = pred[keep] - NUM_KNOWN, label[keep] - NUM_KNOWN
    table = np.zeros((num_novel, num_clusters))
    for n, c in itertools.product(range(num_novel), range(num_clusters)):
        inside, truth = pred == c, label == n
        table[n, c] = (inside & truth).sum() / max((inside | truth).sum(), 1e-8)
    return table


def discovery(block: list[list[int]]) -> np.ndarray:
    """Matrix whose novel rows and cluster columns are `block`; the known part must not matter for matching."""
    block = np.array(block)
    matrix = np.full((NUM_KNOWN + block.shape[0], NUM_KNOWN + block.shape[1]), 1000)
    matrix[NUM_KNOWN:, NUM_KNOWN:] = block
    return matrix


blocks = st.integers(1, 4).flatmap(
    lambda n: st.integers(n, 6).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 50), min_size=k, max_size=k), min_size=n, max_size=n)
    )
)


# ---- confusion matrix and IoU


def test_confusion_by_hand():
    pred = torch.tensor([[0, 1, 1], [2, 2, 3]])
    label = torch.tensor([[0, 0, 1], [1, 255, 255]])
    assert confusion_matrix(pred, label, num_pred=4, num_true=2).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


@pytest.mark.parametrize("dtypes", [(torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.uint8, torch.int64)])
def test_confusion_against_a_loop(dtypes):
    """101 outputs times 61 classes overflow uint8."""
    pred, label = pixels(0, num_pred=101, num_true=61)
    expected = np.zeros((61, 101), dtype=np.int64)
    for p, t in zip(pred, label, strict=True):
        if t != 255:
            expected[t, p] += 1
    found = confusion_matrix(torch.from_numpy(pred).to(dtypes[0]), torch.from_numpy(label).to(dtypes[1]), 101, 61)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), expected)


def test_batches_add_up():
    pred, label = pixels(1, 6, 5)
    parts = sum(matrix_of(pred[i : i + 1000], label[i : i + 1000], 6, 5) for i in range(0, 4000, 1000))
    assert np.array_equal(parts, matrix_of(pred, label, 6, 5))


def test_everything_ignored_is_an_empty_matrix():
    label = torch.full((2, 3, 3), 255, dtype=torch.uint8)
    assert confusion_matrix(torch.zeros(2, 3, 3, dtype=torch.int64), label, 4, 3).tolist() == [[0] * 4] * 3


@pytest.mark.parametrize("label", [3, 4, 254])
def test_a_label_outside_the_classes_is_an_error(label):
    with pytest.raises(RuntimeError):
        confusion_matrix(torch.zeros(2, dtype=torch.int64), torch.tensor([0, label]), num_pred=5, num_true=3)


@pytest.mark.parametrize("later", [255, 0, 2])
def test_labels_of_later_classes(later):
    """Not counted, or in the row that takes them; the same of 8-bit labels, which OpenCV counts, and of wider ones."""
    pred, label = pixels(3, num_pred=6, num_true=5)
    moved = np.where((label >= 3) & (label != 255), later, label)
    expected = np.histogram2d(moved, pred, [np.arange(4), np.arange(7)])[0]
    for kind in (torch.uint8, torch.int64):
        found = confusion_matrix(torch.from_numpy(pred), torch.from_numpy(label).to(kind), 6, 3, later)
        assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize(("pred", "label", "wrong"), [(1, 3, "label 3 is none of 3"), (5, 1, "none of 5 outputs")])
def test_values_of_eight_bits_outside_the_classes_are_errors(pred, label, wrong):
    values = (torch.tensor([0, value], dtype=torch.uint8) for value in (pred, label))
    with pytest.raises(RuntimeError, match=wrong):
        confusion_matrix(*values, num_pred=5, num_true=3)


def test_counts_are_exact_beyond_single_precision():
    """OpenCV counts in float32, which stops at 2^24."""
    label = torch.zeros(2**24 + 3, dtype=torch.uint8)
    assert confusion_matrix(label, label, 2, 1).tolist() == [[2**24 + 3, 0]]


def test_works_under_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        assert confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), 2, 2).tolist() == [[1, 1], [0, 0]]
    finally:
        torch.use_deterministic_algorithms(False)


def test_iou_by_hand():
    """Class 2 is in neither; the last column, unmatched predictions, lowers the IoU of class 1 only."""
    matrix = np.array([[6, 2, 0, 0], [1, 3, 0, 4], [0, 0, 0, 0]])
    np.testing.assert_allclose(iou(matrix), [6 / 9, 3 / 10, np.nan])
    np.testing.assert_allclose(iou(matrix[:, :3]), [6 / 9, 3 / 6, np.nan])


# ---- matching


@pytest.mark.parametrize(("num_novel", "num_clusters"), [(5, 10), (4, 4), (2, 7), (1, 1)])
def test_matching_against_masks(num_novel, num_clusters):
    pred, label = pixels(num_novel, NUM_KNOWN + num_clusters, NUM_KNOWN + num_novel)
    table = matches_by_masks(pred, label, num_clusters, num_novel)
    matrix = matrix_of(pred, label, NUM_KNOWN + num_clusters, NUM_KNOWN + num_novel)
    assert np.array_equal(match_clusters(matrix, NUM_KNOWN, "many_to_one"), table.argmax(0))
    assert np.array_equal(match_clusters(torch.from_numpy(matrix), NUM_KNOWN, "many_to_one"), table.argmax(0))
    choices = itertools.permutations(range(num_clusters), num_novel)
    best = max(choices, key=lambda c: sum(table[n, c[n]] for n in range(num_novel)))
    one_to_one = np.full(num_clusters, -1)
    one_to_one[list(best)] = np.arange(num_novel)
    assert np.array_equal(match_clusters(matrix, NUM_KNOWN, "one_to_one"), one_to_one)
    official = one_to_one if num_clusters == num_novel else table.argmax(0)
    assert np.array_equal(match_clusters(matrix, NUM_KNOWN, "official"), official)


def test_intersection_over_union_decides_not_the_pixel_count():
    """Cluster 0 has 300 pixels of class 0 and 180 of class 1; class 0 is so large that class 1 has the larger IoU."""
    matrix = discovery([[300, 2000, 0], [180, 0, 20]])
    assert 300 / (480 + 2300 - 300) < 180 / (480 + 200 - 180)
    assert match_clusters(matrix, NUM_KNOWN, "many_to_one").tolist() == [1, 0, 1]


def test_a_cluster_never_seen_and_a_tie_go_to_the_first_class():
    assert match_clusters(discovery([[5, 0, 1], [5, 0, 9]]), NUM_KNOWN, "many_to_one").tolist() == [0, 0, 1]


def test_an_absent_class_attracts_no_cluster():
    matrix = discovery([[0, 0, 0], [5, 0, 1], [0, 3, 1]])
    assert match_clusters(matrix, NUM_KNOWN, "many_to_one").tolist() == [1, 2, 2]
    assert sorted(match_clusters(matrix, NUM_KNOWN, "one_to_one")) == [0, 1, 2]


def test_official_rule_is_one_to_one_when_the_numbers_agree():
    """Both clusters lie mostly on class 0."""
    matrix = discovery([[50, 40], [0, 10]])
    assert match_clusters(matrix, NUM_KNOWN, "official").tolist() == [0, 1]
    assert match_clusters(discovery([[50, 40, 0], [0, 5, 0]]), NUM_KNOWN, "official").tolist() == [0, 0, 0]


def test_one_to_one_maximises_the_sum_not_each_cluster():
    """Greedy by IoU would give cluster 0 to class 0 and leave nothing for class 1."""
    matrix = discovery([[60, 40, 0], [30, 0, 0]])
    assert match_clusters(matrix, NUM_KNOWN, "one_to_one").tolist() == [1, 0, -1]


def test_too_few_clusters():
    """The official code has no rule for them. By hand, IoU of cluster 0: 5/14, 9/17, 0; of cluster 1: 0, 3/12, 0."""
    with pytest.raises(ValueError, match="1 clusters cannot cover 2 novel classes; use at least 2"):
        match_clusters(discovery([[1], [2]]), NUM_KNOWN, "official")
    matrix = discovery([[5, 0], [9, 3], [0, 0]])
    assert match_clusters(matrix, NUM_KNOWN, "many_to_one").tolist() == [1, 1]
    assert match_clusters(matrix, NUM_KNOWN, "one_to_one").tolist() == [0, 1]  # 5/14 + 3/12 is more than 9/17
    assert rules_for(2, 3) == ("many_to_one", "one_to_one")
    assert rules_for(3, 3) == rules_for(4, 3) == ("official", "many_to_one", "one_to_one")


@given(blocks, st.randoms(use_true_random=False))
def test_numbering_of_clusters_does_not_matter(block, random):
    """Rows of equal IoU are ties between classes, decided by the class number: clusters may move freely."""
    order = list(range(len(block[0])))
    random.shuffle(order)
    shuffled = [[row[c] for c in order] for row in block]
    match = match_clusters(discovery(block), NUM_KNOWN, "many_to_one")
    assert np.array_equal(match_clusters(discovery(shuffled), NUM_KNOWN, "many_to_one"), match[order])
    scores = [
        iou(apply_match(discovery(b), match_clusters(discovery(b), NUM_KNOWN, "many_to_one"), NUM_KNOWN))
        for b in (block, shuffled)
    ]
    np.testing.assert_array_equal(*scores)


@given(blocks)
def test_one_to_one_gives_every_class_one_cluster(block):
    match = match_clusters(discovery(block), NUM_KNOWN, "one_to_one")
    assert sorted(match[match >= 0]) == list(range(len(block)))


# ---- metrics after matching


@pytest.mark.parametrize("rule", ["many_to_one", "one_to_one"])
def test_merging_columns_equals_relabelling_pixels(rule):
    num_novel, num_clusters = 2, 5
    pred, label = pixels(3, NUM_KNOWN + num_clusters, NUM_KNOWN + num_novel)
    matrix = matrix_of(pred, label, NUM_KNOWN + num_clusters, NUM_KNOWN + num_novel)
    match = match_clusters(matrix, NUM_KNOWN, rule)
    left_over = NUM_KNOWN + num_novel
    table = np.array([*range(NUM_KNOWN), *(NUM_KNOWN + m if m >= 0 else left_over for m in match)])
    expected = matrix_of(table[pred], label, left_over + 1, left_over)
    assert np.array_equal(apply_match(matrix, match, NUM_KNOWN), expected)


def test_leftover_clusters_are_misses_and_nobody_elses_false_alarms():
    matrix = np.diag([10, 10, 10, 10, 10, 0])[:5]  # NUM_KNOWN + 2 classes, 3 clusters
    matrix[4, 5] = 10
    scores = iou(apply_match(matrix, np.array([0, 1, -1]), NUM_KNOWN))
    np.testing.assert_allclose(scores, [1, 1, 1, 1, 0.5])


def test_summary_by_hand():
    names = ["background", "cat", "dog", "bus", "car"]
    matrix = np.zeros((5, 6), dtype=np.int64)
    matrix[0, :2] = 8, 2
    matrix[1, 1] = 6
    matrix[3, [3, 5]] = 4, 4  # half of the buses went to a leftover cluster; dog and car are nowhere
    summary = summarize(torch.from_numpy(matrix), names, GROUPS, "zero")
    assert summary["per_class"] == {"background": 0.8, "cat": 0.75, "dog": None, "bus": 0.5, "car": None}
    assert summary["miou"] == pytest.approx((0.8 + 0.75 + 0.5) / 5)
    assert (summary["base_miou"], summary["novel_miou"]) == (0.375, 0.25)
    assert summary["harmonic_miou"] == pytest.approx(2 * 0.375 * 0.25 / 0.625)
    assert summary["pixel_accuracy"] == 18 / 24
    assert summary["mean_accuracy"] == pytest.approx((0.8 + 1 + 0.5) / 5)
    assert (summary["base_accuracy"], summary["novel_accuracy"]) == (0.5, 0.25)
    assert summary["fw_iou"] == pytest.approx((10 * 0.8 + 6 * 0.75 + 8 * 0.5) / 24)
    skipped = summarize(matrix, names, GROUPS, "skip")
    assert skipped["miou"] == pytest.approx((0.8 + 0.75 + 0.5) / 3)
    assert (skipped["base_miou"], skipped["novel_miou"]) == (0.75, 0.5)
    assert skipped["mean_accuracy"] == pytest.approx((0.8 + 1 + 0.5) / 3)
    assert (skipped["base_accuracy"], skipped["novel_accuracy"], skipped["fw_iou"]) == (1, 0.5, summary["fw_iou"])


def test_scores_are_those_of_the_official_incremental_code():
    """A confusion matrix and the scores that SSUL's validation gives for it; the last class has no pixel at all."""
    matrix = np.array(
        [
            [483, 43, 43, 40, 38, 44, 34],
            [127, 11, 13, 8, 15, 11, 9],
            [110, 13, 13, 11, 11, 11, 15],
            [111, 7, 12, 7, 11, 11, 7],
            [112, 10, 11, 8, 11, 11, 9],
            [140, 9, 10, 12, 9, 8, 8],
            [0, 0, 0, 0, 0, 0, 0],
        ]
    )
    class_accuracy = [0.6662068956, 0.0567010306, 0.0706521735, 0.0421686744, 0.0639534880, 0.0408163163, 0.0]
    summary = summarize(matrix, list("abcdefg"), {"old": range(4), "new": range(4, 7)}, "zero")
    expected = {
        "pixel_accuracy": 0.32559560171044594,
        "mean_accuracy": 0.1343569412235496,
        "fw_iou": 0.18230385843859748,
        "miou": 0.07881594480684935,
        "old_miou": 0.12014346245761794,
        "new_miou": 0.023712587939157898,
        "old_accuracy": np.mean(class_accuracy[:4]),  # "before" and "after" of the official tables
        "new_accuracy": np.mean(class_accuracy[4:]),
    }
    assert {key: summary[key] for key in expected} == pytest.approx(expected, abs=1e-8)
    skipped = summarize(matrix, list("abcdefg"), {"old": range(4), "new": range(4, 7)}, "skip")
    assert skipped["mean_accuracy"] == pytest.approx(np.mean(class_accuracy[:6]), abs=1e-8)
    assert skipped["new_accuracy"] == pytest.approx(np.mean(class_accuracy[4:6]), abs=1e-8)


def test_a_predicted_but_absent_class_has_iou_zero_not_null():
    matrix = np.array([[3, 1], [0, 0]])
    summary = summarize(matrix, ["a", "b"], {}, "skip")
    assert summary["per_class"] == {"a": 0.75, "b": 0.0}
    assert summary["mean_accuracy"] == summary["fw_iou"] == 0.75  # b has no labelled pixel
    assert summarize(matrix, ["a", "b"], {}, "zero")["mean_accuracy"] == 0.375
    assert "harmonic_miou" not in summary


def test_nothing_labelled():
    summary = summarize(np.zeros((5, 5)), list("abcde"), GROUPS, "skip")
    assert {v for k, v in summary.items() if k != "per_class"} == {None}
    assert summarize(np.zeros((5, 5)), list("abcde"), GROUPS, "zero")["harmonic_miou"] == 0


def test_a_number_of_names_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError):
        summarize(np.eye(3), ["a", "b"], {})


@given(blocks, st.integers(2, 9))
def test_metrics_depend_on_shares_of_pixels_only(block, factor):
    matrix = discovery(block)
    names = [str(i) for i in range(len(matrix))]
    groups = {"base": [1, 2], "novel": list(range(NUM_KNOWN, len(matrix)))}
    merged = [apply_match(m, match_clusters(m, NUM_KNOWN, "many_to_one"), NUM_KNOWN) for m in (matrix, factor * matrix)]
    first, second = (summarize(m, names, groups) for m in merged)
    assert first.pop("per_class").keys() == second.pop("per_class").keys()
    assert first == pytest.approx(second)
    assert all(0 <= value <= 1 for value in first.values())


# ---- clusters of everything, background included


def test_background_is_assigned_like_any_class():
    """Cluster 0 lies on the thing, cluster 1 on the ground; a third one goes to the class it overlaps most."""
    matrix = np.array([[1, 8, 3], [6, 0, 2]])
    assert match_all(matrix[:, :2]).tolist() == [1, 0]
    assert match_all(matrix).tolist() == [1, 0, 0]  # 3 of 14 or 2 of 11 pixels
    assert match_all(matrix, "one_to_one").tolist() == [1, 0, -1]
    assert match_all(matrix[:, :1]).tolist() == [1]  # fewer clusters than classes
    assert apply_match(matrix, match_all(matrix), 0).tolist() == [[11, 1, 0], [2, 6, 0]]


def test_hungarian_maximises_the_sum_of_iou():
    """By itself each cluster would take class 0."""
    assert match_all(np.array([[60, 50], [10, 0]])).tolist() == [1, 0]
    assert match_all(np.array([[60, 50], [10, 0]]), "many_to_one").tolist() == [0, 0]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=60))
def test_agreement_of_partitions_is_that_of_scikit_learn(pairs):
    truth, found = (np.array(values) for values in zip(*pairs, strict=True))
    matrix = confusion_matrix(torch.from_numpy(found), torch.from_numpy(truth), 5, 4)
    scores = partition_scores(matrix)
    assert scores["ari"] == pytest.approx(adjusted_rand_score(truth, found), abs=1e-9)
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(truth, found), abs=1e-9)


def test_counts_of_a_step_are_those_of_the_evaluation():
    """Whatever the type of the labels, each with its ignored value."""
    pred, label = pixels(3, 6, 5)
    for kind in (np.uint8, np.int64):
        values = torch.from_numpy(label.astype(kind))
        found = confusion_of_step(torch.from_numpy(pred), values, 6, 5)
        assert found.dtype == torch.int64 and torch.equal(found, torch.from_numpy(matrix_of(pred, label, 6, 5)))


def test_agreement_without_pixels():
    assert partition_scores(np.zeros((3, 3), int)) == {"nmi": 0.0, "ari": 0.0}


def test_clusters_without_known_novel_classes_stay_apart():
    """Background and one base class are scored; what three clusters took from them counts as missed."""
    confusion = np.array([[6, 0, 2, 0, 0], [1, 3, 0, 0, 4]])
    spec = Spec(["background", "disc"], 5, {"base": [1]}, num_known=2)
    found = confusion_metrics(confusion, spec)
    assert found["match"] == [[0, -1], [1, -1], [2, -1]] and spec.rules == ()
    assert found["per_class"] == {"background": 6 / 9, "disc": 3 / 8} and found["base_miou"] == 3 / 8
    assert "novel_miou" not in found and "harmonic_miou" not in found
