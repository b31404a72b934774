import numpy as np
import pytest

from utils.measure.word_regression import features_of_words, suggest


def test_a_known_word_by_hand():
    """Two classes with orthogonal words: weights are the centred features over 1 + ridge."""
    words, features = np.eye(2), np.array([[2.0, 0.0], [0.0, 0.0]])
    made = features_of_words(words, features, np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), ridge=0.5)
    assert made == pytest.approx(np.array([[1 / 1.5, 0], [-1 / 1.5, 0], [0, 0]]))


def test_names_follow_where_looks_are_a_map_of_words():
    """Features are a linear map of words, with noise: every unseen word finds its own cluster."""
    rng = np.random.default_rng(0)
    lift = rng.standard_normal((8, 40))
    known, new = rng.standard_normal((30, 8)), rng.standard_normal((6, 8))
    features = known / np.linalg.norm(known, axis=1, keepdims=True) @ lift + 0.05 * rng.standard_normal((30, 40))
    clusters = new[::-1] / np.linalg.norm(new, axis=1, keepdims=True)[::-1] @ lift
    found = suggest(known, features + 7, list("abcdef"), new, clusters + 7)
    assert [best[0][0] for best in found] == list("fedcba")
    assert all(len(best) == 3 and best[0][1] > 0.9 and best[0][1] >= best[1][1] >= best[2][1] for best in found)


def test_fewer_words_than_asked_for():
    found = suggest(np.eye(2), np.eye(2), ["a"], np.eye(2)[:1], np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert [[name for name, _ in best] for best in found] == [["a"], ["a"]]
    assert found[0][0][1] == pytest.approx(1)
