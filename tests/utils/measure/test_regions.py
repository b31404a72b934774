import numpy as np

from utils.measure.regions import STEP, over_segment


def halves(side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Features of 2 x 2 cells that differ left and right, and an image whose colours do from column 20 on."""
    features = np.zeros((3, 2, 2), np.float32)
    features[0, :, 0] = features[1, :, 1] = 1
    image = np.full((3, side, side), 200, np.uint8)
    image[:, :, 20:] = 30
    return features, image


def test_colours_draw_the_border_where_features_are_coarse():
    """Features change between columns 8 and 24, colours at 20: so do the two cells, at the grid point of column 20."""
    features, image = halves()
    cells = over_segment(features, image, 2, seed=0)
    assert cells.shape == (32 // STEP, 32 // STEP) and cells.dtype == np.int32
    assert (cells == cells[0]).all() and np.flatnonzero(np.diff(cells[0])).tolist() == [20 // STEP - 1]


def test_a_flat_image_is_cut_by_place_alone():
    cells = over_segment(np.ones((3, 2, 2), np.float32), np.full((3, 32, 32), 9, np.uint8), 4, seed=0)
    assert set(np.bincount(cells.ravel()).tolist()) == {16}  # four quarters of 8 x 8 points
