"""Learning-rate factors and loss weights as pure functions of the epoch."""

import math
from collections.abc import Sequence


def step_factor(epoch: int, milestones: Sequence[int], decay: float = 0.1) -> float:
    """decay^n, with n the number of milestones below `epoch` (0-based; strictly below, as in the official code)."""
    return decay ** sum(epoch > milestone for milestone in milestones)


def poly_factor(progress: float, power: float = 0.9) -> float:
    """(1 - progress)^power for progress in [0, 1)."""
    return (1 - progress) ** power


def sigmoid_rampup(epoch: float, length: float) -> float:
    """exp(-5 (1 - min(epoch, length)/length)^2), which rises to 1; 1 if length is 0 (Laine & Aila, ICLR 2017)."""
    if length == 0:
        return 1.0
    remaining = 1 - min(max(epoch, 0.0), length) / length
    return math.exp(-5 * remaining * remaining)


def poly_rate(rate: float, step: int, total: int, floor: float = 1e-6, power: float = 0.9) -> float:
    """Learning rate of the 0-based `step` of `total`: rate (1 - step/total)^power, at least `floor` (SSUL)."""
    return max(rate * (1 - step / total) ** power, floor)


def warm_poly_rate(
    rate: float, step: int, total: int, warm: float = 0.1, start: float = 0.001, power: float = 0.9
) -> float:
    """rate (1 - step/total)^power, times a linear warm-up from `start` to 1 over a share `warm` of the steps (SSUL)."""
    length = int(warm * total)
    factor = start * (1 - step / length) + step / length if step < length else 1.0
    return rate * factor * (1 - step / total) ** power
