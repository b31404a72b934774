import numpy as np
import pytest

from data.io import read_label
from data.pseudo_labels import MANIFEST, Origin, PseudoLabels, pseudo_label
from utils.checkpoint import read_json, write_json
from utils.errors import UserError

NOVEL = (1, 3)  # of five classes
ORIGIN = Origin("own", ("sky", "cat", "road", "dog", "tree"), ("cat", "dog"))


def test_base_pixels_are_true_and_novel_ones_predicted_where_the_image_shows_them():
    """Base pixels stay; 255 and novel ones take class 1, of the tags, but not class 3, of none, nor base classes."""
    label = np.array([[0, 2, 255, 1, 1, 255, 3, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 1, 3, 4, 1, 3]], np.int64)
    found = pseudo_label(prediction, label, np.array([1, 1, 1, 0, 0]), NOVEL)
    assert found.dtype == np.uint8 and found.tolist() == [[0, 2, 1, 1, 255, 255, 1, 255]]


def test_an_image_without_novel_tags_keeps_its_base_pixels_alone():
    label, prediction = np.array([[4, 255, 3]], np.uint8), np.array([[1, 1, 3]])
    assert pseudo_label(prediction, label, np.array([0, 0, 0, 0, 1]), NOVEL).tolist() == [[4, 255, 255]]


def test_an_image_without_mask_takes_base_classes_of_its_tags_too():
    label, prediction = np.full((1, 4), 255, np.uint8), np.array([[0, 1, 2, 3]])
    found = pseudo_label(prediction, label, np.array([0, 1, 1, 0, 0]), NOVEL, has_mask=False)
    assert found.tolist() == [[255, 1, 2, 255]]


@pytest.fixture
def labels(tmp_path) -> PseudoLabels:
    (tmp_path / "network").write_text("weights")
    made = PseudoLabels(tmp_path / "labels", ORIGIN)
    assert made.start(tmp_path / "network") == set()
    made.write("a", np.array([[0, 3, 255]], np.uint8))
    return made


def test_a_stopped_run_goes_on_and_another_network_begins_anew(labels, tmp_path):
    assert labels.start(tmp_path / "network") == {"a"}
    assert read_json(labels.folder / MANIFEST)["novel"] == ["cat", "dog"]
    assert labels.start(tmp_path / "network", {"size": 640}) == set() and not list(labels.folder.glob("*.png"))
    labels.write("b", np.zeros((1, 1), np.uint8))
    (tmp_path / "network").write_text("other weights")
    assert labels.start(tmp_path / "network", {"size": 640}) == set() and not list(labels.folder.glob("*.png"))


def test_what_was_written_is_read(labels):
    (path,) = labels.paths(["a"])
    assert labels.read(path).tolist() == read_label(path).tolist() == [[0, 3, 255]]
    labels.write("a", np.array([[5]], np.uint8))
    with pytest.raises(UserError, match=r"a\.png: label value 5 is not a class here; allowed: 0-4, 255"):
        labels.read(path)


def test_nothing_stands_in_for_a_label_that_is_missing(labels):
    with pytest.raises(
        UserError, match=r"b\.png: no such file; 2 of 3 images have no pseudo-label; make them with stage="
    ):
        labels.paths(["a", "b", "c"])


@pytest.mark.parametrize(
    ("classes", "novel"),
    [(ORIGIN.classes, ("cat", "tree")), (("sky", "cat", "road", "dog"), ORIGIN.novel)],
    ids=["other novel classes", "another data set"],
)
def test_labels_of_another_split_are_refused(labels, classes, novel):
    with pytest.raises(
        UserError, match=r"labels: pseudo-labels of split=own \(cat, dog novel of 5 classes\), but split=new has"
    ):
        PseudoLabels(labels.folder, Origin("new", classes, novel)).paths(["a"])
    assert PseudoLabels(labels.folder, Origin("new", ORIGIN.classes, ("dog", "cat"))).paths(
        ["a"]
    )  # a name is no matter


def test_a_folder_that_does_not_say_what_it_is(labels):
    write_json(labels.folder / MANIFEST, {"split": "own"})
    with pytest.raises(UserError, match=r"manifest\.json: does not say which classes the pseudo-labels are of"):
        labels.paths(["a"])
    (labels.folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest\.json: does not say"):
        labels.paths(["a"])
