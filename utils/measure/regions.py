"""Over-segmentation of an image: k-means cells of features, colours and places, for pictures without salient objects.

D features, h w feature cells, S pixels a side, g grid points a side.
"""

import cv2
import numpy as np
from sklearn.cluster import KMeans

STEP = 4  # pixels between grid points; borders of cells are exact to this
DIMENSIONS = 16  # of the features that are kept; the others hold a few per cent of their variance within an image
COLOR, PLACE = 0.5, 0.5  # variance of colours and of places where that of features is 1


def over_segment(features: np.ndarray, image: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cell 0..count-1 of each grid point, int32 [g, g].

    features float [D, h, w], image uint8 [3, S, S]. Features decide the cells, but lie on a coarse grid; colours
    refine the borders, positions make cells compact. A cell may consist of several pieces.
    """
    grid = image.shape[-1] // STEP
    maps = [_scaled(_enlarged(_reduced(features), grid), 1.0)]
    colors = cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2LAB)
    maps.append(_scaled(cv2.resize(colors, (grid, grid), interpolation=cv2.INTER_AREA).astype(np.float32), COLOR))
    maps.append(_scaled(np.moveaxis(np.mgrid[:grid, :grid], 0, 2).astype(np.float32), PLACE))
    points = np.concatenate(maps, 2).reshape(grid * grid, -1)
    return KMeans(count, random_state=seed, n_init=1).fit_predict(points).reshape(grid, grid).astype(np.int32)


def _reduced(features: np.ndarray) -> np.ndarray:
    """Unit vectors of the cells along their first principal directions, [h, w, d]."""
    channels, height, width = features.shape
    cells = features.reshape(channels, -1).T.astype(np.float32)
    cells = cells / np.linalg.norm(cells, axis=1, keepdims=True).clip(1e-12)
    left, values, _ = np.linalg.svd(cells - cells.mean(0), full_matrices=False)
    kept = min(DIMENSIONS, len(values))
    return (left[:, :kept] * values[:kept]).reshape(height, width, kept)


def _enlarged(cells: np.ndarray, grid: int) -> np.ndarray:
    layers = [cv2.resize(cells[..., d], (grid, grid), interpolation=cv2.INTER_LINEAR) for d in range(cells.shape[2])]
    return np.stack(layers, 2)


def _scaled(values: np.ndarray, variance: float) -> np.ndarray:
    """Centres values [g, g, d] and scales them to this total variance."""
    centred = values - values.mean((0, 1))
    return centred * np.sqrt(variance / max(float((centred**2).mean((0, 1)).sum()), 1e-12))
