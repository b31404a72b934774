"""Image lists by name, and the classes in the masks of a list."""

from pathlib import Path

import numpy as np
import pytest

from data.classes import ClassGroups
from data.io import write_label
from data.label_map import LabelMap
from data.layouts import find_layout
from data.lists import image_list, presence, scan
from data.source import DataContext
from utils.checkpoint import write_list
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError

ALL = ["both", "disc", "square", "dot", "rest", "empty"]
CLASSES = ClassGroups("own", ("background", "disc", "square", "bar", "dot", "rest"), ((1, 2), (3, 4))).everything()


def context(root: Path, dataset="none", lists_dir=None) -> DataContext:
    data = {"dataset": dataset, "lists": lists_dir}
    cfg = DiscoveryConfig.model_validate({"data": data, "output_dir": root / "out"})
    return DataContext(cfg, root, find_layout(root))


def test_presence_leaves_out_the_ignore_value(root):
    found = scan(context(root), ["square", "both", "empty"], CLASSES)
    assert found == [("square", {0, 2}), ("both", {0, 1, 3}), ("empty", {0})]


def test_a_value_that_is_no_class_stops_the_scan(root):
    """Also for masks in the table: lists made from such values would silently omit the image."""
    write_label(root / "SegmentationClassAug" / "dot.png", np.array([[0, 200]], np.uint8))
    for _ in range(2):
        with pytest.raises(UserError, match=r"dot\.png: label value 200 is not a class here; allowed: 0-5, 255"):
            scan(context(root), ALL, CLASSES)
    assert scan(context(root), ["dot"], LabelMap.from_pairs({0: 0, 200: 1})) == [("dot", {0, 200})]


def test_only_new_and_changed_masks_are_read(root, monkeypatch):
    """One table below output_dir serves all lists and splits."""
    before, read = scan(context(root), ALL, CLASSES), []
    monkeypatch.setattr("data.lists.values_of", lambda paths, _: read.extend(paths) or [frozenset({0})] * len(paths))
    assert scan(context(root), ALL, CLASSES) == before and read == []
    path = root / "SegmentationClassAug" / "disc.png"
    write_label(path, np.array([[2, 2]], np.uint8))
    assert scan(context(root), ["dot", "disc"], CLASSES) == [("dot", {0, 4}), ("disc", {0})]
    assert read == [path]
    (root / "out" / "presence.json").write_text("{")  # cut short
    scan(context(root), ALL, CLASSES)
    assert len(read) == 1 + len(ALL)


def test_named_lists_come_from_the_given_folder_then_the_root_then_the_shipped_ones(root, tmp_path, caplog):
    caplog.set_level("INFO", "beyond_fixed_classes")
    own = tmp_path / "own_lists"
    write_list(own / "val.txt", ["dot"])
    assert image_list(context(root, lists_dir=own), "val") == ["dot"]
    assert image_list(context(root), "val") == ["rest", "dot", "square"]
    assert str(own / "val.txt") in caplog.text and str(root / "sets" / "val.txt") in caplog.text
    assert presence(context(root), "val", CLASSES) == [("rest", {0, 5}), ("dot", {0, 4}), ("square", {0, 2})]
    (root / "sets" / "val.txt").unlink()
    shipped = presence(context(root, "pascal"), "val", CLASSES)
    assert len(shipped) == 1449 and image_list(context(root, "pascal"), "val")[0] == shipped[0][0]
    assert "the official list of pascal" in caplog.text
