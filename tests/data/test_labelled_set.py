"""Exported data sets are read back by the readers of annotation formats without loss."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.labelled_set import FORMATS, LabelledImage, polygons, run_lengths, write_set
from data.prepare.annotations import read_annotations
from data.prepare.coco import region
from utils.errors import UserError

NAMES = ["background", "dog", "great dane", "cow"]


@pytest.fixture
def images(tmp_path) -> list[LabelledImage]:
    """One with a ring, a region in its hole and one at the border; one without any object."""
    label = np.zeros((40, 50), np.uint8)
    label[5:35, 5:35] = 1
    label[10:30, 10:30] = 0  # the hole
    label[15:25, 15:25] = 2
    label[:, 45:] = 3
    label[0:3, 0:9] = 255
    confidence = np.where(label == 2, 0.5, 0.75).astype(np.float32)
    for name in ("one.JPG", "two.png"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / name)
    return [
        LabelledImage(tmp_path / "one.JPG", label, confidence, 0.25),
        LabelledImage(tmp_path / "two.png", np.zeros((40, 50), np.uint8), confidence),
    ]


def read_back(target, form):
    where = {"folder": "labels", "voc": "SegmentationClass", "coco": "annotations.json", "labelme": ""}[form]
    names = target / "classes.txt" if form in ("folder", "voc") else None
    return read_annotations(target / where, names=names)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_read_back(images, tmp_path, form):
    assert write_set(tmp_path / "out", form, images, NAMES) == 2
    found = read_back(tmp_path / "out", form)
    drawn, expected = found.draw["one"]((40, 50)), images[0].label.copy()
    if form == "coco":
        expected[expected == 255] = 0  # COCO has no ignored pixels
    numbers = np.array([NAMES.index(name) for name in found.names] + [255] * (256 - len(found.names)))
    assert (numbers[drawn] == expected).all()
    assert len(list((tmp_path / "out").rglob("one.[jJ]*"))) == 1 + (form == "labelme")  # the photograph goes with it


def test_confidence_is_a_row_per_class(images, tmp_path):
    write_set(tmp_path / "out", "folder", images, NAMES)
    with (tmp_path / "out" / "confidence.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("one.JPG", "dog", "0.2500", "0.750", "0.250"),  # 30 * 30 - 20 * 20 of 2000 pixels
        ("one.JPG", "cow", "0.1000", "0.750", "0.250"),
        ("one.JPG", "great dane", "0.0500", "0.500", "0.250"),
        ("two.png", "", "0", "", ""),
    ]


def test_sources_are_a_row_per_photograph(images, tmp_path):
    write_set(tmp_path / "out", "folder", [images[0], replace(images[1], source="fused")], NAMES)
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [("one.JPG", "network", "0.719", "0.250"), ("two.png", "fused", "", "")]


def test_an_export_is_replaced_and_nothing_else(images, tmp_path):
    write_set(tmp_path / "out", "voc", images, NAMES)
    write_set(tmp_path / "out", "folder", images[:1], NAMES)
    assert not (tmp_path / "out" / "SegmentationClass").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="own: exists, and is no earlier export"):
        write_set(tmp_path / "own", "folder", images, NAMES)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("change", ["corrected", "added", "removed"])
def test_an_export_that_was_worked_on_is_kept(images, tmp_path, change):
    write_set(tmp_path / "out", "labelme", images, NAMES)
    file = tmp_path / "out" / ("one.json" if change != "added" else "notes.txt")
    file.unlink() if change == "removed" else file.write_text("{}")
    with pytest.raises(UserError, match=rf"out: {file.name} was changed since it was exported"):
        write_set(tmp_path / "out", "labelme", images, NAMES)
    assert (file.read_text() == "{}") if file.exists() else change == "removed"


def test_a_link_is_followed(images, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_set(tmp_path / "link", "coco", images, NAMES)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "annotations.json").exists()


@pytest.mark.parametrize(("form", "folder"), [("folder", "images"), ("voc", "JPEGImages"), ("labelme", ".")])
def test_photographs_are_turned_as_their_labels_lie(tmp_path, form, folder):
    """Programs with and without EXIF support show the same image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    label = np.ones((50, 40), np.uint8)
    write_set(tmp_path / "out", form, [LabelledImage(tmp_path / "a.jpg", label, label * 0.5)], NAMES)
    with Image.open(tmp_path / "out" / folder / "a.jpg") as image:
        assert image.size == (40, 50) and 0x0112 not in image.getexif()


def test_a_fault_leaves_no_folder(images, tmp_path):
    with pytest.raises(UserError, match="no photograph to label"):
        write_set(tmp_path / "out", "coco", [], NAMES)
    assert not list(tmp_path.glob("*out*"))


def test_coco_annotations_by_hand(images, tmp_path):
    write_set(tmp_path / "out", "coco", images, NAMES)
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["one.JPG", "two.png"]
    cow = next(thing for thing in content["annotations"] if thing["category_id"] == 3)
    assert cow["area"] == 200 and cow["bbox"] == [45, 0, 5, 40] and cow["segmentation"]["counts"] == [1800, 200]
    assert [thing["id"] for thing in content["annotations"]] == [1, 2, 3]


def test_run_lengths_are_cocos():
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    for one in (mask, ~mask, np.ones((2, 3), bool), np.zeros((2, 3), bool)):
        assert (region({"size": list(one.shape), "counts": run_lengths(one)}, *one.shape) == one).all()


def test_specks_get_no_polygon():
    label = np.zeros((20, 20), np.uint8)
    label[5, 5], label[10:14, 10:14] = 1, 1
    assert polygons(label, NAMES) == [("dog", [[10.5, 10.5], [10.5, 13.5], [13.5, 13.5], [13.5, 10.5]])]
