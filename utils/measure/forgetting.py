"""Metrics over the steps of a class-incremental task, computed from the metrics after each step.

T steps, G groups of classes; each step adds one group.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# metric -> the classes it covers
CURVES = {"miou": "all classes", "old_miou": "classes of step 0", "new_miou": "later classes"}


def step_matrix(metrics: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[str]]) -> np.ndarray:
    """Mean IoU of each group of class names after each step, float [T, G]; NaN before a group is learned.

    A class without a pixel counts as 0, as in the published tables.
    """
    matrix = np.full((len(metrics), len(groups)), np.nan)
    for row, found in enumerate(metrics):
        for column, names in enumerate(groups):
            if all(name in found["per_class"] for name in names):
                matrix[row, column] = np.mean([found["per_class"][name] or 0.0 for name in names])
    return matrix


def forgetting(matrix: np.ndarray) -> float | None:
    """Mean over all groups but the last of max_t IoU - final IoU; None for a single step.

    matrix [T, G] of `step_matrix` (Chaudhry et al., ECCV 2018, eq. 3, on IoU).
    """
    if len(matrix) < 2 or np.isnan(matrix[-1, :-1]).any():
        return None
    best = np.nanmax(matrix[:-1, :-1], axis=0)
    return float((best - matrix[-1, :-1]).mean())


def summarize_steps(metrics: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Metrics of the last step, means over steps, forgetting, and the step x group matrix (null: not learned)."""
    matrix = step_matrix(metrics, groups)
    known = {key: [m[key] for m in metrics if m.get(key) is not None] for key in CURVES}
    return {
        "last": metrics[-1],
        "mean_over_steps": {key: float(np.mean(values)) for key, values in known.items() if values},
        "forgetting": forgetting(matrix),
        "groups": [list(names) for names in groups],
        "step_matrix": [[None if np.isnan(value) else float(value) for value in row] for row in matrix],
    }


def step_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Name in CURVES -> (step, mIoU) points."""
    return {name: [(m["step"], m[key]) for m in metrics if m.get(key) is not None] for key, name in CURVES.items()}
