"""Split names by a score."""

import math
from collections.abc import Sequence


def split_by_score(names: Sequence[str], scores: Sequence[float], proportion: float) -> tuple[list[str], list[str]]:
    """(low, high): ascending by score, ties in the given order; low takes int(proportion * n), or a count when >= 1.

    An image without a score (NaN: no object pixels) goes last; the official code sorts those arbitrarily.
    """
    pairs = sorted(zip(scores, names, strict=True), key=lambda pair: (math.isnan(pair[0]), pair[0]))
    ranked = [name for _, name in pairs]
    count = int(proportion) if proportion >= 1 else int(proportion * len(names))
    return ranked[:count], ranked[count:]
