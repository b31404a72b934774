"""Layouts of label maps, and unseen classes pasted into them."""

import numpy as np
import torch

from models.zeroshot.pixels import class_cells, paste_unseen, shrink_label


def test_shrinking_takes_the_pixel_at_the_corner_of_a_cell():
    label = torch.arange(10, dtype=torch.uint8).view(1, 1, 10)
    assert shrink_label(label, (1, 3)).tolist() == [[[0, 3, 6]]]  # floor(i * 10 / 3)


def test_layouts_list_classes_and_cells_in_order():
    label = np.array([[[3, 0, 255], [0, 3, 255]], [[1, 1, 1], [255, 1, 1]], [[255] * 3] * 2], np.uint8)
    first, second, third = class_cells(label, {1})
    assert first.classes == [0, 3] and [cells.tolist() for cells in first.cells] == [[1, 3], [0, 4]]
    assert second.classes == [1] and second.has_unseen and not first.has_unseen
    assert third.classes == [] and third.cells == [] and not third.has_unseen


def test_pasting_swaps_one_seen_object_for_an_unseen_class():
    label = np.array([[[0, 2]], [[0, 0]], [[255, 3]]], np.uint8)
    swaps = paste_unseen(label, [7, 8], 1.0, background=0, draw=torch.Generator().manual_seed(0))
    assert swaps[0][0] == 2 and swaps[1] is None and swaps[2][0] == 3
    assert {swap[1] for swap in (swaps[0], swaps[2])} <= {7, 8}
    assert paste_unseen(label, [7], 0.0, background=0) == [None, None, None]
    assert paste_unseen(label[1:2], [7], 1.0, background=None) == [(0, 7)]


def test_the_share_of_pasted_images():
    label = np.ones((2000, 1, 1), np.uint8)
    swaps = paste_unseen(label, [7], 0.3, background=0, draw=torch.Generator().manual_seed(0))
    assert abs(sum(swap is not None for swap in swaps) / 2000 - 0.3) < 0.04
