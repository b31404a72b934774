import numpy as np

from utils.measure.semi_kmeans import semi_supervised_kmeans


def test_known_classes_keep_their_points_and_take_those_near_them():
    """On a line: class 0 at 0 and 1, class 1 at 10 and 12; unlabelled points near them, and two further groups."""
    known, labels = np.array([[0.0], [1], [10], [12]]), np.array([0, 0, 1, 1])
    points = np.array([[0.4], [11], [30], [31], [-20], [-21], [10.5]])
    found = semi_supervised_kmeans(points, known, labels, 2, seed=0, n_init=5)
    assert found[[0, 1, 6]].tolist() == [0, 1, 1]
    assert found[2] == found[3] and found[4] == found[5] and {found[2], found[4]} == {2, 3}


def test_a_labelled_point_stays_with_its_class_where_another_centre_is_nearer():
    """Class 0 at 0 and 9, class 1 at 10: the centre of class 0 is 4.5, 9 lies nearer to class 1 and still counts there.

    The unlabelled point at 6.5 is 2.0 from 4.5; with it the mean is 5.17, and it stays. Without the labels k-means puts
    9 and 10 together.
    """
    known, labels = np.array([[0.0], [9], [10]]), np.array([0, 0, 1])
    assert semi_supervised_kmeans(np.array([[6.5], [50.0]]), known, labels, 1, seed=0).tolist() == [0, 2]


def test_the_same_seed_gives_the_same_clusters_and_any_number_of_them():
    points = np.random.default_rng(0).standard_normal((40, 3))
    options = (points[:10] + 5, np.repeat([0, 1], 5), 6)
    one, other = (semi_supervised_kmeans(points, *options, seed=3, n_init=2) for _ in range(2))
    assert np.array_equal(one, other) and set(one) <= set(range(8))
    assert set(semi_supervised_kmeans(np.ones((3, 3)), *options, seed=3)) <= set(range(8))  # no distance to draw by
