import numpy as np
import pytest
from scipy.io import savemat

import prepare_data
from data.layouts import LAYOUTS, find_layout
from data.prepare.check import Check
from data.prepare.stuff import build_cocostuff, check_ade
from tests.weakshot_data import TEST, TRAIN, make_ade, make_stuff, open_data
from utils.errors import UserError
from utils.run import guarded


def test_coco_stuff_is_converted_once_and_reads_the_same(tmp_path, capsys):
    root = make_stuff(tmp_path / "stuff")
    before = open_data(root, tmp_path)
    images = [image.sample.load_label() for image in before.known]
    assert guarded(prepare_data.main, ["cocostuff", "--root", str(root), "--workers", "1"]) == 0
    folder = root / "annotations_detectron2"
    assert capsys.readouterr().out.splitlines() == [
        f"train: 8 masks written to {folder}/train; 8 images, no fault; the official list has 9000",
        f"test: 3 masks written to {folder}/test; 3 images, no fault; the official list has 1000",
        f"use them with data.dataset=cocostuff10k data.root={root}",
    ]
    assert find_layout(root) is LAYOUTS["cocostuff_detectron2"]
    made = open_data(root, tmp_path)
    assert [image.classes for image in made.known] == [image.classes for image in before.known]
    assert all(np.array_equal(one.sample.load_label(), label) for one, label in zip(made.known, images, strict=True))
    moved = root.rename(tmp_path / "moved")
    times = {path: path.lstat().st_mtime_ns for path in sorted(moved.rglob("*_detectron2/*/*"))}
    assert len(times) == 2 * (len(TRAIN) + len(TEST))
    assert next(build_cocostuff(moved, 1)).startswith("train: 0 masks written")
    assert times == {path: path.lstat().st_mtime_ns for path in sorted(moved.rglob("*_detectron2/*/*"))}


def test_the_prepared_folders_serve_without_the_download(tmp_path):
    root = make_stuff(tmp_path / "stuff")
    list(build_cocostuff(root, 1))
    for path in [*(root / "annotations").iterdir(), *(root / "imageLists").iterdir()]:
        path.unlink()
    (root / "imageLists").rmdir()
    data = open_data(root, tmp_path)
    assert {image.sample.id for image in data.known} <= set(TRAIN) and len(data.known) == 6
    assert len(data.val_images()) == len(TEST)


def test_what_is_wrong_with_coco_stuff_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match=r"has no folders images, annotations, imageLists; download cocostuff-data"):
        list(build_cocostuff(tmp_path / "none"))
    root = make_stuff(tmp_path / "stuff")
    first = root / "annotations" / f"{next(iter(TRAIN))}.mat"
    savemat(first, {"other": 1})
    assert guarded(prepare_data.main, ["cocostuff", "--root", str(root), "--workers", "1"]) == 2
    assert f"{first}: has no label map S" in capsys.readouterr().err
    savemat(first, {"S": np.full((40, 56), 180, np.uint8)})
    with pytest.raises(UserError, match=rf"{first}: label value 178 is not a class here; allowed: 0-170, 255"):
        list(build_cocostuff(root, 1))


def test_ade20k_is_checked_and_left_as_it_is(tmp_path, capsys):
    root = make_ade(tmp_path / "ade")
    assert guarded(prepare_data.main, ["ade", "--root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 8 images, no fault, 1 without a class; the official list has 20210",
        "val: 3 images, no fault, 0 without a class; the official list has 2000",
        f"use them with data.dataset=ade data.root={root}",
    ]
    with pytest.raises(UserError, match=r"none: has no folders images and annotations; download ADEChallengeData2016"):
        list(check_ade(tmp_path / "none"))


def test_a_check_counts_images_of_each_class(tmp_path):
    root = make_stuff(tmp_path / "stuff")
    checked = Check(open_data(root, tmp_path).cfg)
    lines = list(checked.lines())
    assert lines[:3] == [
        "train: 7 images, no fault",  # one shows no class
        "val: 3 images, 1 fault",  # drawn as one of the others was
        "  base  person                    3 training images",
    ]
    assert [fault.kind for fault in checked.faults] == ["duplicate"]
    assert "  novel motorcycle                3 training images" in lines
