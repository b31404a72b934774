"""Errors of pseudo-labels by hand."""

import numpy as np

from data.discovery.label_errors import LabelErrors, majority, mask_iou


def test_majority_of_each_cluster():
    clusters, classes = np.array([0, 0, 0, 1, 1, -1, 2]), np.array([2, 2, 1, 1, 0, 3, 0])
    assert majority(clusters, classes).tolist() == [True, True, False, True, False, True, False]


def test_mask_iou_on_valid_pixels():
    found, true = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool)
    assert mask_iou(found, true, np.array([[1, 1, 1, 0]], bool)) == 1 / 3
    assert mask_iou(found & False, true & False, true | True) == 0


def test_a_wrong_cluster_is_a_whole_error():
    errors = LabelErrors(np.array([True, False, True]), np.array([0.75, 0.9, 0.0]))
    assert errors.error.tolist() == [0.25, 1.0, 1.0]
