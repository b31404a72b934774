"""The graph of a label map against growing regions cell by cell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.zeroshot.graph import label_graph


def grown(label: np.ndarray):
    """(component, first cells, adjacency) as the official code makes them."""
    height, width = label.shape
    component, first = -np.ones(label.shape, int), []

    def around(i, j):
        return (
            (x, y) for x in range(max(0, i - 1), min(height, i + 2)) for y in range(max(0, j - 1), min(width, j + 2))
        )

    for i in range(height):
        for j in range(width):
            if component[i, j] < 0:
                component[i, j], stack = len(first), [(i, j)]
                while stack:
                    for cell in around(*stack.pop()):
                        if component[cell] < 0 and label[cell] == label[i, j]:
                            component[cell] = len(first)
                            stack.append(cell)
                first.append(i * width + j)
    adjacency = np.zeros((len(first), len(first)))
    for i in range(height):
        for j in range(width):
            for cell in around(i, j):
                if component[cell] != component[i, j]:
                    adjacency[component[i, j], component[cell]] = 1
    return component, first, adjacency


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_nodes_and_edges_are_those_of_the_plain_way(seed, height, width):
    label = np.random.RandomState(seed).choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    component, first, adjacency = grown(label)
    graph = label_graph(label)
    assert graph.component.tolist() == component.tolist() and graph.first.tolist() == first
    assert graph.label.tolist() == label.ravel()[first].tolist()
    assert graph.adjacency().to_dense().tolist() == adjacency.tolist()


def test_parts_that_touch_at_a_corner_are_one():
    graph = label_graph(np.array([[1, 0], [0, 1]], np.uint8))
    assert len(graph) == 2 and graph.label.tolist() == [1, 0]


def test_loops_and_means_on_request():
    graph = label_graph(np.array([[1, 2, 3]], np.uint8))
    assert graph.adjacency(self_loops=True).to_dense().tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert graph.adjacency(normalize=True).to_dense().tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]]


def test_feature_of_a_node():
    graph = label_graph(np.array([[5, 5], [6, 5]], np.uint8))
    cells = torch.tensor([[1.0], [2], [10], [6]])
    assert graph.features(cells).tolist() == [[1], [10]]
    assert graph.features(cells, "mean").tolist() == [[3], [10]]


def test_one_node_has_no_edge():
    graph = label_graph(np.full((3, 3), 255, np.uint8))
    assert len(graph) == 1 and graph.edges.shape == (2, 0)
    assert graph.adjacency().to_dense().tolist() == [[0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_thin_maps(size):
    label = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    assert label_graph(label).adjacency().to_dense().tolist() == grown(label)[2].tolist()
