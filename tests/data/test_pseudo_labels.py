import numpy as np
import pytest
import torch

from data.io import read_label, write_label
from data.layouts import Sample
from data.pseudo_labels import (
    MANIFEST,
    Origin,
    PseudoLabel,
    PseudoLabels,
    clustered_labels,
    mean_certainty,
    merge_labels,
)
from utils.checkpoint import digest, read_json, write_json
from utils.errors import UserError

NOVEL = (1, 3)  # of five classes
ORIGIN = Origin("own", ("sky", "cat", "road", "dog", "tree"), ("cat", "dog"))


def test_base_pixels_are_true_and_novel_ones_predicted_where_the_image_shows_them():
    """Base pixels stay; 255 and novel ones take class 1, of the tags, but not class 3, of none, nor base classes."""
    label = np.array([[0, 2, 255, 1, 1, 255, 3, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 1, 3, 4, 1, 3]], np.int64)
    found = merge_labels(prediction, label, np.array([1, 1, 1, 0, 0]), NOVEL)
    assert found.dtype == np.uint8 and found.tolist() == [[0, 2, 1, 1, 255, 255, 1, 255]]


def test_an_image_without_novel_tags_keeps_its_base_pixels_alone():
    label, prediction = np.array([[4, 255, 3]], np.uint8), np.array([[1, 1, 3]])
    assert merge_labels(prediction, label, np.array([0, 0, 0, 0, 1]), NOVEL).tolist() == [[4, 255, 255]]


def test_an_image_without_mask_takes_base_classes_of_its_tags_too():
    label, prediction = np.full((1, 4), 255, np.uint8), np.array([[0, 1, 2, 3]])
    found = merge_labels(prediction, label, np.array([0, 1, 1, 0, 0]), NOVEL, has_mask=False)
    assert found.tolist() == [[255, 1, 2, 255]]


MADE_BY = "train_weakshot.py CONFIG stage=pseudo"


@pytest.fixture
def labels(tmp_path) -> PseudoLabels:
    (tmp_path / "network").write_text("weights")
    made = PseudoLabels(tmp_path / "labels", ORIGIN, MADE_BY)
    with made.writing({"network": tmp_path / "network"}, {"size": 320}) as add:
        add(PseudoLabel("b", np.array([[255, 255]], np.uint8)))
        add(PseudoLabel("a", np.array([[0, 3, 255]], np.uint8), 0.75, {"lowest": {"dog": 0.5}}))
    return made


def test_the_manifest_tells_what_made_the_labels(labels, tmp_path):
    assert read_json(labels.folder / MANIFEST) == {
        "split": "own",
        "classes": list(ORIGIN.classes),
        "novel": ["cat", "dog"],
        "made_from": {"network": digest(tmp_path / "network")},
        "settings": {"size": 320},
        "images": {
            "a": {"confidence": 0.75, "labelled": 2, "lowest": {"dog": 0.5}},
            "b": {"confidence": None, "labelled": 0},
        },
    }
    assert labels.confidences() == {"a": 0.75}
    assert PseudoLabels(tmp_path / "none", ORIGIN, MADE_BY).confidences() == {}


def test_finished_means_complete_and_made_from_the_same(labels, tmp_path):
    network = {"network": tmp_path / "network"}
    assert labels.finished(network, {"size": 320}) and not labels.finished(network, {"size": 640})
    (tmp_path / "network").write_text("other weights")
    assert not labels.finished(network, {"size": 320})


def test_a_stopped_run_leaves_no_manifest_and_no_label_of_an_earlier_one(labels, tmp_path):
    network = {"network": tmp_path / "network"}
    with pytest.raises(RuntimeError), labels.writing(network, {"size": 320}) as add:
        add(PseudoLabel("c", np.zeros((1, 1), np.uint8)))
        raise RuntimeError("killed")
    assert not labels.finished(network, {"size": 320})
    assert [path.name for path in labels.folder.glob("*")] == ["c.png"]


def test_what_was_written_is_read(labels):
    (path,) = labels.paths(["a"])
    assert labels.read(path).tolist() == read_label(path).tolist() == [[0, 3, 255]]
    write_label(labels.path("a"), np.array([[5]], np.uint8))
    with pytest.raises(UserError, match=r"a\.png: label value 5 is not a class here; allowed: 0-4, 255"):
        labels.read(path)


def test_samples_get_the_label_as_a_mask_or_in_a_field_of_its_own(labels, tmp_path):
    sample = Sample("a", tmp_path / "a.jpg", tmp_path / "mask.png")
    (added,), (masked,) = labels.added_to([sample]), labels.as_masks([sample])
    assert added.label == sample.label and added.pseudo == labels.path("a")
    assert masked.label == labels.path("a") and masked.pseudo is None
    assert masked.load_label().tolist() == [[0, 3, 255]]


def test_an_official_folder_has_no_manifest(tmp_path):
    write_label(tmp_path / "pseudo_labels" / "a.png", np.zeros((1, 1), np.uint8))
    assert clustered_labels(tmp_path, ORIGIN).paths(["a"]) == [tmp_path / "pseudo_labels" / "a.png"]
    with pytest.raises(UserError, match=r"b\.png: no such file; 1 of 1 .* run: python cluster_pseudolabel.py CONFIG"):
        clustered_labels(tmp_path, ORIGIN).paths(["b"])
    write_json(tmp_path / "pseudo_labels" / MANIFEST, {"split": "new", "classes": ["sky"], "novel": ["cat"]})
    with pytest.raises(UserError, match=r"pseudo-labels of split=new \(cat novel of 1 classes\), but split=own has"):
        clustered_labels(tmp_path, ORIGIN).paths(["a"])
    assert clustered_labels(tmp_path).paths(["a"])  # a reader that does not check classes


def test_mean_certainty_is_over_the_pixels_that_took_the_prediction():
    certainty = torch.tensor([[0.25, 0.5], [0.75, 1.0]])
    predicted = np.zeros((4, 4), bool)
    predicted[:2, 2:] = predicted[2:, :2] = True
    assert mean_certainty(certainty, predicted) == 0.625
    assert mean_certainty(certainty, np.zeros((4, 4), bool)) is None


def test_nothing_stands_in_for_a_label_that_is_missing(labels):
    with pytest.raises(
        UserError, match=r"c\.png: no such file; 1 of 3 images have no pseudo-label; run: python train_weakshot.py CON"
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
        PseudoLabels(labels.folder, Origin("new", classes, novel), MADE_BY).paths(["a"])
    same = Origin("new", ORIGIN.classes, ("dog", "cat"))  # the split's name does not matter
    assert PseudoLabels(labels.folder, same, MADE_BY).paths(["a"])


def test_a_folder_that_does_not_say_what_it_is(labels):
    write_json(labels.folder / MANIFEST, {"split": "own"})
    with pytest.raises(
        UserError, match=r"manifest\.json: missing or incomplete, so the classes of the pseudo-labels are unknown; run"
    ):
        labels.paths(["a"])
    (labels.folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest\.json: missing or incomplete"):
        labels.paths(["a"])
