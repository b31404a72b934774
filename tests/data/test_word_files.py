import gzip

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from data import word_files
from data.word_files import read_words
from utils.errors import UserError

WORDS = {"cow": [1.0, -2.5, 0.25], "zebra": [0.5, 0.5, 1e-3], "traffic": [3.0, 1.0, 2.0]}


def text(header: bool) -> str:
    lines = [f"{len(WORDS)} 3"] if header else []
    return "\n".join([*lines, *(f"{word} {' '.join(map(str, v))}" for word, v in WORDS.items())]) + "\n"


@pytest.mark.parametrize("header", [True, False], ids=["word2vec, fastText", "GloVe"])
@pytest.mark.parametrize("packed", [True, False])
def test_text_files(tmp_path, header, packed):
    path = tmp_path / ("words.vec.gz" if packed else "words.txt")
    with gzip.open(path, "wt") if packed else path.open("w") as file:
        file.write(text(header))
    found = read_words(path, ["zebra", "cow", "canoe"])
    assert set(found) == {"cow", "zebra"} and all(vector.dtype == np.float32 for vector in found.values())
    for word, vector in found.items():
        assert vector.tolist() == pytest.approx(WORDS[word])


def test_word2vec_binary(tmp_path):
    records = b"".join(
        word.encode() + b" " + np.array(vector, "<f4").tobytes() + end
        for (word, vector), end in zip(WORDS.items(), (b"\n", b"", b"\n"), strict=True)  # both kinds are about
    )
    path = tmp_path / "words.bin"
    path.write_bytes(b"3 3\n" + records)
    found = read_words(path, ["traffic", "cow", "canoe"])
    assert {word: vector.tolist() for word, vector in found.items()} == {w: WORDS[w] for w in ("cow", "traffic")}
    path.write_bytes(b"4 3\n" + records)
    with pytest.raises(UserError, match=r"words\.bin: not a readable file of word vectors \(it ends before its last"):
        read_words(path, ["canoe"])
    path.write_bytes(b"GIF89a\n")
    with pytest.raises(UserError, match=r"words\.bin: not a readable .*its first line does not say"):
        read_words(path, ["canoe"])


def test_the_first_vector_counts_and_longer_names_do_not(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("a 1 1\ncow 1 2\ncow 3 4\nat name@x.y 5 6\nat 7 8\n", encoding="utf-8")
    found = read_words(path, ["cow", "at"])
    assert found["cow"].tolist() == [1, 2] and found["at"].tolist() == [7, 8]


def test_reading_stops_when_all_words_are_there(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("cow 1 2\nzebra broken line\n")
    assert list(read_words(path, ["cow"])) == ["cow"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cow\n", r"it starts with 'cow'; expected a word and its numbers"),
        (b"\x93NUMPY\x01\x00 x", "expected a word and its numbers in each line"),
        (b"cow 1 2\nzebra x y\n", "could not convert"),
    ],
)
def test_other_files_are_one_line(tmp_path, content, message):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_words(tmp_path / "words.txt", ["zebra"])
    assert str(caught.value).startswith(str(tmp_path / "words.txt")) and "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.vec: no such file of word vectors"):
        read_words(tmp_path / "none.vec", ["cow"])
    (tmp_path / "words.vec.gz").write_bytes(b"not packed")
    with pytest.raises(UserError, match="not a readable file of word vectors"):
        read_words(tmp_path / "words.vec.gz", ["cow"])


def test_the_glove_package_is_asked_for(monkeypatch):
    monkeypatch.setattr(word_files, "GLOVE_PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="'glove6b': needs no-such-package-here and pyarrow .*, or give the path"):
        word_files.read_glove(["cow"])


def test_the_glove_package(tmp_path, monkeypatch):
    """A small copy of it; its own list of words has the same one column of strings."""
    data = tmp_path / "tiny_glove" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    parquet.write_table(pyarrow.table({"index": ["horse", "barn"]}), data / "glove_6B_index.parquet")
    np.save(data / "glove_6B_50d_emb.npy", np.arange(4, dtype=np.float32).reshape(2, 2))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(word_files, "GLOVE_PACKAGE", "tiny_glove")
    found = word_files.read_glove(["horse", "cow"])
    assert list(found) == ["horse"] and found["horse"].tolist() == [0, 1]
    np.save(data / "glove_6B_50d_emb.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"glove_6B_index\.parquet: 2 words for 3 vectors; of another version"):
        word_files.read_glove(["horse"])
    (data / "glove_6B_index.parquet").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"glove_6B_index\.parquet: cannot be read \("):
        word_files.read_glove(["horse"])
