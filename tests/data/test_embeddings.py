import hashlib
from pathlib import Path

import numpy as np
import pytest

from data.classes import SPLITS, load_classes
from data.embeddings import class_vectors, look_up, name_vectors, read_table, write_table
from utils.config.zeroshot import ZeroShotImages
from utils.errors import UserError

# sum and sha256 of the numbers, from the description of the published tables
SHIPPED = {
    "pascal": (21, -20.2480316, "ed66371966f5cb65"),
    "context": (60, -178.6177826, "1e1e6e08aa8774cb"),
}


def options(source, **keys) -> ZeroShotImages:
    return ZeroShotImages.model_validate({"embeddings": str(source)} | keys)


@pytest.mark.parametrize("dataset", SHIPPED)
def test_published_tables_are_shipped_unchanged(dataset):
    count, total, digest = SHIPPED[dataset]
    table = read_table(SPLITS / dataset / "vectors.npz")
    assert table.vectors.shape == (count, 300) and table.vectors.dtype == np.float32
    assert table.vectors.sum(dtype=np.float64) == pytest.approx(total, abs=1e-5)
    assert hashlib.sha256(table.vectors.tobytes()).hexdigest()[:16] == digest
    names = load_classes(dataset).names
    rows = class_vectors(names, options("shipped", dataset=dataset))
    assert np.array_equal(rows, table.vectors)  # in the order of the classes; VOC's "table" is our "diningtable"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_neighbours_in_the_shipped_tables():
    vectors = dict(zip(load_classes("pascal").names, read_table(SPLITS / "pascal/vectors.npz").vectors, strict=True))
    for one, other, expected in (("cow", "sheep", 0.61), ("motorbike", "bicycle", 0.63), ("cat", "dog", 0.76)):
        assert cosine(vectors[one], vectors[other]) == pytest.approx(expected, abs=0.006)


@pytest.fixture
def words(tmp_path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("cow 1 0\ntraffic 0 2\nlight 4 0\nairplane 0 1\ntv 2 2\nmonitor 0 0\nice_cream 5 5\nParis 7 7\n")
    return path


def test_names_of_several_words_are_averaged(words):
    names = ["cow", "traffic light", "aeroplane", "tvmonitor", "light-traffic", "ice cream", "Cow", "Paris"]
    expected = [[1, 0], [2, 1], [0, 1], [1, 1], [2, 1], [5, 5], [1, 0], [7, 7]]
    assert look_up(names, str(words), "pascal").tolist() == expected


def test_aliases_come_first(words):
    found = class_vectors(["cow", "kow"], options(words, aliases={"kow": "cow", "cow": "traffic light"}))
    assert found.tolist() == [[2, 1], [1, 0]]


def test_an_alias_is_not_passed_over(words, caplog):
    with pytest.raises(UserError, match="no vector for 1 of 1 names: 'cow'"):
        class_vectors(["cow"], options(words, aliases={"cow": "nothing"}))
    class_vectors(["cow"], options(words, aliases={"kow": "Paris"}))
    assert "data.aliases: 'kow' is no class of the data set; classes: cow" in caplog.text


@pytest.mark.parametrize("row", ["nan 1", "1e99 1"])
def test_vectors_of_no_numbers_are_refused(tmp_path, row):
    (tmp_path / "words.txt").write_text(f"cow 1 0\ndog {row}\n")
    with pytest.raises(UserError, match=r"words\.txt: the vector of 'dog' is not finite"):
        look_up(["cow", "dog"], str(tmp_path / "words.txt"), "pascal")


def test_two_names_of_one_vector_are_warned_of(tmp_path, caplog):
    write_table(tmp_path / "t.npz", ["cow", "dog"], np.ones((2, 3)))
    look_up(["cow", "dog"], str(tmp_path / "t.npz"), "pascal")
    assert "'cow' and 'dog' have the same vector" in caplog.text
    write_table(tmp_path / "t.npz", ["cow", "dog"], np.eye(2, 3, k=1) * [[1], [0]])
    look_up(["cow", "dog"], str(tmp_path / "t.npz"), "pascal")
    assert "the vector of 'dog' is zero" in caplog.text
    write_table(tmp_path / "t.npz", ["cow", "cow"], np.ones((2, 3)))
    with pytest.raises(UserError, match=r"t\.npz: has 'cow' twice"):
        look_up(["cow"], str(tmp_path / "t.npz"), "pascal")


def test_scales(words):
    names = ["cow", "light", "traffic"]
    assert class_vectors(names, options(words)).tolist() == [[1, 0], [4, 0], [0, 2]]
    assert class_vectors(names, options(words, vector_scale="largest")).tolist() == [[0.25, 0], [1, 0], [0, 0.5]]
    assert class_vectors(names, options(words, vector_scale="unit")).tolist() == [[1, 0], [1, 0], [0, 1]]
    # additional names are scaled like the classes
    new = name_vectors(["airplane", "Paris"], options(words, vector_scale="largest"), names)
    assert new.tolist() == [[0, 0.25], [1.75, 1.75]]
    assert name_vectors(["traffic"], options(words, vector_scale="unit"), names).tolist() == [[0, 1]]
    assert name_vectors(["traffic"], options(words), names).tolist() == [[0, 2]]


def test_every_class_without_a_vector_is_in_one_line(words):
    names = load_classes("pascal").names
    with pytest.raises(UserError) as caught:
        class_vectors(names, options(words))
    message = str(caught.value)
    assert message.startswith(f"{words}: no vector for 18 of 21 names: 'background', 'bicycle', 'bird', ")
    assert message.count("'") == 2 * 18 + 4 and "for them in data.aliases" in message and "\n" not in message


def test_tables_with_more_rows_and_another_order(tmp_path):
    write_table(tmp_path / "t.npz", ["zebra", "cow", "traffic light"], np.arange(6).reshape(3, 2))
    assert look_up(["cow", "zebra"], str(tmp_path / "t.npz"), "pascal").tolist() == [[2, 3], [0, 1]]
    with pytest.raises(UserError, match=r"t\.npz: no vector for 1 of 2 names: 'canoe'"):
        look_up(["cow", "canoe"], str(tmp_path / "t.npz"), "pascal")


def test_official_matrices_without_names(tmp_path):
    np.save(tmp_path / "m.npy", np.eye(3, 2))
    assert look_up(["a", "b", "c"], str(tmp_path / "m.npy"), "pascal").tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(UserError, match=r"m\.npy: a matrix of shape \(3, 2\), but 2 classes; expected a row of each"):
        look_up(["a", "b"], str(tmp_path / "m.npy"), "pascal")
    with pytest.raises(UserError, match=r"m\.npy: a matrix without names, which has no vectors of other words"):
        name_vectors(["zebra"], options(tmp_path / "m.npy"), ["a", "b", "c"])


def test_faulty_tables_are_one_line(tmp_path):
    path = tmp_path / "t.npz"
    for content, message in (
        ({"vectors": np.eye(2)}, "holds vectors; expected an npz with 'embeddings'"),
        ({"embeddings": np.eye(2), "class_names": ["a"]}, r"1 names for vectors of shape \(2, 2\)"),
        ({"embeddings": np.array([[np.nan, 1]]), "class_names": ["a"]}, "no finite numbers"),
        ({"embeddings": np.array([["x", "y"]]), "class_names": ["a"]}, "no finite numbers"),
    ):
        np.savez(path, **content)
        with pytest.raises(UserError, match=message) as caught:
            read_table(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"t\.npz: not a readable table"):
        read_table(path)
    with pytest.raises(UserError, match=r"none\.npz: no such table of vectors"):
        read_table(tmp_path / "none.npz")


def test_a_data_set_without_a_table_of_its_own():
    with pytest.raises(UserError, match="data.embeddings=shipped: none ship for data.dataset=ade; set data.embeddings"):
        class_vectors(["wall"], options("shipped", dataset="ade"))
