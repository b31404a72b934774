import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score

from utils.errors import UserError
from utils.measure.clustering import (
    cluster_prototypes,
    fit_minibatch,
    interpolation_matrix,
    mask_prototypes,
    part_prototypes,
    purity,
)


def by_upsampling(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The official way: every feature channel goes up to the pixels."""
    pixels = F.interpolate(features, size=weight.shape[-2:], mode="bilinear", align_corners=False)
    return F.normalize((pixels * weight[:, None]).sum((2, 3)), dim=1)


def groups(per_group: int = 30, dim: int = 64, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around `count` centres, and the centre of each."""
    rng = np.random.default_rng(0)
    hidden = rng.permutation(np.repeat(np.arange(count), per_group))
    vectors = 4 * rng.standard_normal((count, dim))[hidden] + rng.standard_normal((len(hidden), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), hidden


# ---- prototypes


def test_interpolation_by_hand():
    assert interpolation_matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert interpolation_matrix(3, 3).tolist() == torch.eye(3).tolist()


@pytest.mark.parametrize(
    ("cells", "pixels"), [((8, 8), (64, 64)), ((5, 7), (33, 50)), ((1, 3), (9, 8)), ((6, 9), (4, 5))]
)
def test_equals_the_sum_over_upsampled_features(cells, pixels):
    g = torch.Generator().manual_seed(0)
    features = torch.randn(3, 16, *cells, generator=g, dtype=torch.float64)
    weight = torch.rand(3, *pixels, generator=g, dtype=torch.float64) * 255
    weight[weight < 100] = 0
    expected = by_upsampling(features, weight)
    torch.testing.assert_close(mask_prototypes(features, weight), expected, rtol=1e-10, atol=1e-12)
    single = mask_prototypes(features.float(), weight.float())
    torch.testing.assert_close(single, expected.float(), rtol=1e-4, atol=1e-6)


def test_prototype_by_hand():
    """The two middle pixels of 4 over cells (1, 0) and (0, 1): cell weights 0.75 + 0.25 each."""
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    weight = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    torch.testing.assert_close(mask_prototypes(features, weight), torch.full((1, 2), 0.5**0.5))
    weight = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])  # cells 0.75 and 0.25
    torch.testing.assert_close(mask_prototypes(features, weight), torch.tensor([[3.0, 1.0]]) / 10**0.5)


def test_a_prototype_for_each_part():
    """As each part alone would have; a part without a pixel has zeros."""
    g = torch.Generator().manual_seed(2)
    features, weight = torch.randn(2, 8, 4, 4, generator=g), torch.randint(0, 10, (2, 32, 32), generator=g).float()
    parts = torch.zeros(2, 3, 32, 32)
    parts[:, 0, :16], parts[0, 1, 16:, 8:] = 1, 1
    found = part_prototypes(features, weight[:, None] * parts)
    assert found.shape == (2, 3, 8) and not found[:, 2].any() and not found[1, 1].any()
    for part in (0, 1):
        torch.testing.assert_close(found[:, part], mask_prototypes(features, weight * parts[:, part]))


def test_semi_supervised_clusters_are_numbered_beside_the_classes():
    """Objects near the class at place 1 get -2; a separate group gets 0."""
    rng = np.random.default_rng(0)
    known = [rng.normal(0, 0.1, (5, 2)) + centre for centre in ([0, 0], [4, 0])]
    objects = np.concatenate([rng.normal(0, 0.1, (4, 2)) + [4, 0], rng.normal(0, 0.1, (3, 2)) + [0, 9]])
    found = cluster_prototypes(objects, 1, pca_dim=None, seed=0, known=known)
    assert found.ids.tolist() == [-2] * 4 + [0] * 3 and len(found.points) == 7
    with pytest.raises(UserError, match="cluster.assign=semi: a base class is in no image of base classes"):
        cluster_prototypes(objects, 1, pca_dim=None, seed=0, known=[known[0], np.zeros((0, 2))])


def test_grey_levels_weigh_and_their_scale_does_not():
    g = torch.Generator().manual_seed(1)
    features, weight = torch.randn(2, 8, 4, 4, generator=g), torch.randint(0, 10, (2, 32, 32), generator=g).float()
    torch.testing.assert_close(mask_prototypes(features, 25 * weight), mask_prototypes(features, weight))
    flat = mask_prototypes(features, (weight > 0).float())
    assert (flat - mask_prototypes(features, weight)).abs().max() > 1e-3


def test_weights_up_to_a_half_do_not_count():
    """As many cells as pixels: 0.5 and -3 are left out, 0.6 and 1.2 weigh 1 to 2."""
    features = torch.tensor([[[[1.0, 0.0, 7.0, 9.0]], [[0.0, 1.0, 7.0, 0.0]]]])
    weight = torch.tensor([[[0.6, 1.2, 0.5, -3.0]]])
    torch.testing.assert_close(mask_prototypes(features, weight), torch.tensor([[1.0, 2.0]]) / 5**0.5)


def test_an_empty_mask_gives_zeros_and_images_do_not_mix():
    features = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    weight = torch.zeros(2, 32, 32)
    weight[1, 3:9, 4:20] = 1
    both = mask_prototypes(features, weight)
    assert torch.equal(both[0], torch.zeros(8))
    torch.testing.assert_close(both[1:], mask_prototypes(features[1:], weight[1:]))
    assert both[1].norm().item() == pytest.approx(1)


# ---- clusters


@pytest.mark.parametrize(("count", "per_group", "pca_dim"), [(33, 5, 32), (5, 30, 8)])
def test_finds_the_groups(count, per_group, pca_dim):
    """Whitening makes the noise as large as the groups: 32 dimensions need more than a few groups or many images."""
    vectors, hidden = groups(per_group, count=count)
    found = cluster_prototypes(vectors, count, pca_dim=pca_dim, seed=242133)
    assert found.points.shape == (count * per_group, pca_dim)
    assert sorted(np.unique(found.ids)) == list(range(count))
    assert adjusted_rand_score(hidden, found.ids) == 1


@pytest.mark.parametrize("scale", [1, 3])
def test_whitening_gives_every_dimension_the_same_variance(scale):
    vectors, _ = groups()
    vectors[:, 0] *= scale
    white = cluster_prototypes(vectors, 5, pca_dim=8, seed=0).points
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T), np.eye(8), atol=1e-4)
    plain = cluster_prototypes(vectors, 5, pca_dim=8, whiten=False, seed=0).points
    variances = plain.var(0)
    assert (np.diff(variances) <= 0).all() and variances[0] > 3 * variances[-1]


def test_without_pca_the_vectors_themselves_are_clustered():
    vectors, hidden = groups()
    found = cluster_prototypes(vectors, 5, pca_dim=None, seed=0)
    assert np.array_equal(found.points, vectors)
    assert adjusted_rand_score(hidden, found.ids) == 1


def test_one_seed_gives_one_result():
    """600 x 520 vectors without structure: scikit-learn's PCA is randomised at this size, and k-means ambiguous."""
    vectors = np.random.default_rng(0).standard_normal((600, 520)).astype(np.float32)
    first, second, other = (cluster_prototypes(vectors, 4, pca_dim=4, seed=s, n_init=1) for s in (7, 7, 8))
    assert np.array_equal(first.points, second.points) and np.array_equal(first.ids, second.ids)
    assert not np.array_equal(first.points, other.points)


@pytest.mark.parametrize(
    ("shape", "k", "pca_dim", "message"),
    [
        ((9, 64), 10, None, "cluster.k=10: only 9 novel objects were kept"),
        ((20, 64), 10, 32, "cluster.pca_dim=32: only 20 novel objects were kept; use at most 20 dimensions"),
        ((50, 16), 10, 32, "cluster.pca_dim=32: the backbone has 16 features; use at most 16"),
    ],
)
def test_too_little_to_cluster(shape, k, pca_dim, message):
    with pytest.raises(UserError, match=message):
        cluster_prototypes(np.zeros(shape, dtype=np.float32), k, pca_dim=pca_dim, seed=0)


def test_just_enough_to_cluster():
    vectors = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    found = cluster_prototypes(vectors, 6, pca_dim=6, whiten=False, seed=0)
    assert sorted(found.ids) == list(range(6))


def test_purity_by_hand():
    """Cluster 1: two of three; cluster 2: one of one; the object without a class is left out."""
    assert purity(np.array([1, 1, 1, 2, 2]), np.array([3, 3, 1, 1, 0])) == 0.75
    assert purity(np.array([1, 2]), np.array([0, 0])) == 0


# ---- mini-batch clustering


def test_mini_batches_find_the_groups_and_assign_others():
    vectors, hidden = groups()
    found = fit_minibatch(vectors, 5, pca_dim=4, whiten=True, seed=0, batch_size=64)
    assert adjusted_rand_score(hidden, found.kmeans.labels_) == 1
    assert np.array_equal(found(vectors), found.kmeans.labels_)
    assert np.array_equal(found(1.01 * vectors[:7]), found.kmeans.labels_[:7])
    raw = fit_minibatch(vectors, 5, pca_dim=None, whiten=True, seed=0)
    assert raw.pca is None and np.array_equal(raw(vectors), raw.kmeans.labels_)


def test_one_seed_gives_one_clustering():
    vectors = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    first, second, other = (fit_minibatch(vectors, 6, pca_dim=8, whiten=True, seed=s).kmeans.labels_ for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("shape", "k", "pca_dim", "message"),
    [
        ((9, 64), 10, None, "kmeans.clusters=10: only 9 vectors to cluster"),
        ((20, 64), 10, 32, "kmeans.pca_dim=32: only 20 vectors to cluster; use at most 20 dimensions"),
        ((50, 16), 10, 32, "kmeans.pca_dim=32: the backbone has 16 features; use at most 16"),
    ],
)
def test_too_little_for_mini_batches(shape, k, pca_dim, message):
    with pytest.raises(UserError, match=message):
        fit_minibatch(np.zeros(shape, dtype=np.float32), k, pca_dim=pca_dim, whiten=True, seed=0)


def reference_prototypes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(prototypes [N, 32], class [N]) of the reference images of MaskContrast's evaluation.

    A large part of class c with logit 5, two parts of another class with logit 0.6, and one direction common to all, of
    either sign.
    """

    def unit(seed: int) -> np.ndarray:
        vector = np.random.RandomState(seed).randn(32)
        return vector / np.linalg.norm(vector)

    means, common, rows, classes = [unit(1000 + i) for i in range(21)], unit(999), [], []
    for j in (j for j in range(count) if j % 25 != 24):  # every 25th has no object
        draw, c = np.random.RandomState(30000 + j), j % 20 + 1
        other, sign = 1 + draw.randint(0, 20), 1 if draw.rand() < 0.5 else -1
        for low, high in ((40, 200), (40, 200), (60, 90), (300, 501), (300, 501)):  # of places and sizes
            draw.randint(low, high)
        rows.append(5 * means[c] + 1.2 * means[other] + 6.2 * (3 * sign * common + 0.02 * draw.randn(32)))
        classes.append(c)
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32), np.array(classes)


def test_minibatch_kmeans_finds_classes_as_the_official_evaluation():
    """Which reaches a mean adjusted Rand index of 0.93 on such data, and 0.44 without whitening."""
    points, classes = reference_prototypes(200)
    found = {}
    for whiten in (True, False):
        fits = [fit_minibatch(points, 20, pca_dim=32, whiten=whiten, seed=seed) for seed in range(1234, 1239)]
        found[whiten] = np.mean([adjusted_rand_score(classes, fit.kmeans.labels_) for fit in fits])
    assert found[True] > 0.88 and found[False] < 0.6
