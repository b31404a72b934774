"""Split names by a score."""

import math
from collections.abc import Sequence


def split_by_score(names: Sequence[str], scores: Sequence[float], proportion: float) -> tuple[list[str], list[str]]:
    """(low, high): ascending by score, ties in the given order; the first int(proportion * n), or that many when it is >= 1.

    An image without a score (NaN: no object pixels) goes last; the official code sorts those arbitrarily.
    """
    order = sorted(range(len(names)), key=lambda i: (math.isnan(scores[i]), 0.0 if math.isnan(scores[i]) else scores[i]))
    count = int(proportion) if proportion >= 1 else int(proportion * len(names))
    ranked = [names[i] for i in order]
    return ranked[:count], ranked[count:]
