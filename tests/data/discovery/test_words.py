import numpy as np
import pytest

from data.discovery.words import vocabulary
from data.embeddings import write_table
from utils.errors import UserError


def test_candidates_are_the_other_names_of_the_table(tmp_path):
    path = tmp_path / "t.npz"
    write_table(path, ["background", "disc", "bar", "dot"], np.arange(8).reshape(4, 2))
    words = vocabulary(["bar"], str(path), "pascal", None)
    assert (
        words.names == ["disc", "dot"]
        and words.known.tolist() == [[4, 5]]
        and words.vectors.tolist() == [[2, 3], [6, 7]]
    )
    with pytest.raises(UserError, match=r"t\.npz: no name but those of the base classes"):
        vocabulary(["bar", "disc", "dot"], str(path), "pascal", None)


def test_candidates_of_ones_own(tmp_path):
    (tmp_path / "words.txt").write_text("bar 1 2\ndot 3 4\nsquare 5 6\n")
    (tmp_path / "names.yaml").write_text("[dot, bar, dot]")
    words = vocabulary(["bar"], str(tmp_path / "words.txt"), "pascal", tmp_path / "names.yaml")
    assert words.names == ["dot"] and words.vectors.tolist() == [[3, 4]]
    with pytest.raises(UserError, match=r"too many words to try all; list some with cluster\.candidates"):
        vocabulary(["bar"], str(tmp_path / "words.txt"), "pascal", None)
    (tmp_path / "names.yaml").write_text("dot: 1")
    with pytest.raises(UserError, match=r"names\.yaml: expected a list of names"):
        vocabulary(["bar"], str(tmp_path / "words.txt"), "pascal", tmp_path / "names.yaml")


def test_the_shipped_table_of_the_demo_set():
    words = vocabulary(["star", "fish"], "shipped", "demo", None)
    assert len(words.names) == 22 and "background" not in words.names and words.known.shape == (2, 64)
