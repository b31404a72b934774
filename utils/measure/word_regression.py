"""Suggests names for clusters: a regression from word vectors to features, fitted on the known classes.

A known classes with word vector and mean feature, V candidate words, K clusters; E word dimensions, D features.
"""

from collections.abc import Sequence

import numpy as np

RIDGE = 0.5  # relative to the self-similarity of a word, 1; strong, because few classes are known


def features_of_words(
    words: np.ndarray, features: np.ndarray, new_words: np.ndarray, ridge: float = RIDGE
) -> np.ndarray:
    """Predicted features of new words: ridge regression in dual form on centred features.

    words [A, E], features [A, D], new_words [V, E] -> [V, D], relative to the mean of `features`. A word similar to
    one known word gets a feature close to that class's; a word unlike all of them gets the mean.
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
    """For each cluster [K, D], the `count` names whose predicted features are closest, with the cosine, best first."""
    expected = features_of_words(words, features, new_words)
    scores = _unit(clusters - features.mean(0)) @ _unit(expected).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return [[(names[word], float(row[word])) for word in order] for row, order in zip(scores, best, strict=True)]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
