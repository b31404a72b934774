"""Names for clusters: words are carried over to features as those of the known classes lie there.

A known classes with a word vector and a mean feature, V candidate words, K clusters; E numbers per word, D per feature.
"""

from collections.abc import Sequence

import numpy as np

RIDGE = 0.5  # in units of a word's own similarity, 1: few classes tell how words and looks go together


def features_of_words(
    words: np.ndarray, features: np.ndarray, new_words: np.ndarray, ridge: float = RIDGE
) -> np.ndarray:
    """Where new words should lie: ridge regression in the dual form, on centred features.

    words [A, E], features [A, D], new_words [V, E] -> [V, D], relative to the mean of `features`. A word like one
    known word gets about that class's feature, a word like none of them the mean.
    """
    known, new = _unit(words), _unit(new_words)
    centred = features - features.mean(0)
    weights = np.linalg.solve(known @ known.T + ridge * np.eye(len(known)), centred)
    return new @ known.T @ weights


def suggest(
    words: np.ndarray,
    features: np.ndarray,
    names: Sequence[str],
    new_words: np.ndarray,
    clusters: np.ndarray,
    count: int = 3,
) -> list[list[tuple[str, float]]]:
    """For each cluster [K, D] the `count` names [V] whose features it is most like, with the cosine, best first."""
    expected = features_of_words(words, features, new_words)
    scores = _unit(clusters - features.mean(0)) @ _unit(expected).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return [[(names[word], float(row[word])) for word in order] for row, order in zip(scores, best, strict=True)]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
