"""Clusters in the place of masks: named by the tags of images, base classes as the base model has them."""

import numpy as np
import pytest

from data.io import write_label
from data.weakshot.cluster_masks import ClusterMasks, count_together, name_clusters
from utils.checkpoint import write_list
from utils.errors import UserError

KNOWN = (0, 1, 3)  # train ids of background and two base classes; 2 and 4 are novel
TAGS = {"a": frozenset({2}), "b": frozenset({2}), "c": frozenset({4}), "d": frozenset({2, 4}), "e": frozenset()}
CLUSTERS = {"a": 0, "b": 1, "c": 1, "d": 1, "e": 0}


@pytest.fixture
def masks(tmp_path) -> ClusterMasks:
    """Image x has, in this order: background, both base classes, its cluster."""
    for name, cluster in CLUSTERS.items():
        write_label(tmp_path / "pseudo_labels" / f"{name}.png", np.array([[0, 1, 2, 3 + cluster]], np.uint8))
    write_list(tmp_path / "novel.txt", list(CLUSTERS))
    return ClusterMasks.open(tmp_path, TAGS, KNOWN, 5)


def test_share_of_the_images_of_a_class_that_show_a_cluster(masks):
    """Of a, b, d with class 2 one shows cluster 0, two cluster 1; of c, d with class 4 both show cluster 1."""
    assert masks.affinity[:, [2, 4]] == pytest.approx(np.array([[1 / 3, 0], [2 / 3, 1]]))
    assert not masks.affinity[:, [0, 1, 3]].any()


def test_a_cluster_is_named_by_the_tags_of_its_image(masks):
    assert masks.label("a", TAGS["a"], (1, 4)).tolist() == [[0, 1, 3, 2]]
    assert masks.label("b", TAGS["b"], (1, 4)).tolist() == [[0, 1, 3, 2]]  # though cluster 1 is rather of class 4
    assert masks.label("d", TAGS["d"], (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert masks.label("e", TAGS["e"], (1, 4)).tolist() == [[0, 1, 3, 255]]


def test_an_image_that_was_not_clustered_is_unlabelled(masks):
    found = masks.label("other", frozenset({2}), (2, 3))
    assert found.dtype == np.uint8 and found.tolist() == [[255] * 3] * 2


def test_nothing_is_known_without_clusters_or_tags():
    assert count_together([], [], 3).shape == (0, 3)
    assert name_clusters(np.ones((2, 3)), frozenset()).tolist() == [255, 255]


def test_a_folder_without_list(tmp_path):
    with pytest.raises(UserError, match=r"novel\.txt"):
        ClusterMasks.open(tmp_path, TAGS, KNOWN, 5)
