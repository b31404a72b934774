import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import prepare_data
from data.io import read_label, write_label
from data.prepare.voc import build_voc
from tests.zeroshot_data import SBD, make_voc_sbd, scene
from utils.errors import UserError
from utils.run import guarded

IMAGES = {"train": {"a": (1,), "b": (10,)}, "sbd": {"c": (3,), "b": (10, 2)}, "val": {"v": (5,)}}


def test_masks_of_both_lie_together(tmp_path, capsys):
    root = make_voc_sbd(tmp_path / "VOCdevkit/VOC2012", IMAGES)
    lines = list(build_voc(tmp_path, None, workers=1))
    assert lines[0] == f"{root}: 4 masks written to SegmentationClassAug, where VOC's and SBD's lie together"
    assert lines[1:4] == [
        "VOC train: 2 images, no fault; the official list has 1464",
        "VOC val: 1 images, no fault; the official list has 1449",
        "SBD train_noval: 2 images, no fault; the official list has 5623",
    ]
    both = {path.stem: path for path in (root / "SegmentationClassAug").iterdir()}
    assert set(both) == set("abcv")
    assert both["b"].read_bytes() == (root / "SegmentationClass/b.png").read_bytes()  # VOC's, where both have one
    assert Image.open(both["c"]).mode == "P" and np.array_equal(read_label(both["c"]), scene(2, (3,))[1])


def test_a_second_run_writes_nothing(tmp_path, capsys):
    root = make_voc_sbd(tmp_path, IMAGES)
    assert guarded(prepare_data.main, ["voc", "--root", str(root), "--workers", "1"]) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (root / "SegmentationClassAug/c.png").unlink()
    assert guarded(prepare_data.main, ["voc", "--root", str(root), "--workers", "1"]) == 0
    assert f"{root}: 1 masks written" in capsys.readouterr().out
    changed = {path.name for path in tmp_path.rglob("*") if before[path] != path.stat().st_mtime_ns}
    assert changed == {"c.png", "SegmentationClassAug"}


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="has no folders JPEGImages, .*; download VOCtrainval_11-May-2012.tar .*--root"):
        list(build_voc(tmp_path, None))
    make_voc_sbd(tmp_path, {part: IMAGES[part] for part in ("train", "val")})
    with pytest.raises(UserError, match="has no folder cls, .*; download benchmark.tgz .* with --sbd"):
        list(build_voc(tmp_path, None))


def test_sbd_elsewhere_and_without_its_list(tmp_path):
    root = make_voc_sbd(tmp_path / "voc", IMAGES)
    (root / "benchmark_RELEASE").rename(tmp_path / "sbd")
    (tmp_path / "sbd/dataset/train_noval.txt").unlink()
    for kind, ending in (("img", "jpg"), ("cls", "mat")):  # the first of the official list
        folder = tmp_path / "sbd/dataset" / kind
        (folder / f"2008_000008.{ending}").write_bytes((folder / f"c.{ending}").read_bytes())
    lines = list(build_voc(root, tmp_path / "sbd", workers=1))
    assert lines[3] == "SBD train_noval: 1 images, no fault; the official list has 5623"
    assert lines[4].startswith(f"use them with data.root={root} data.sbd_root={tmp_path / 'sbd'} data.use_sbd=true")


def test_the_first_fault_is_named(tmp_path):
    root = make_voc_sbd(tmp_path, IMAGES)
    list(build_voc(root, None, workers=1))
    write_label(root / "SegmentationClass/b.png", np.zeros((3, 5), np.uint8))
    with pytest.raises(UserError, match=r"SegmentationClass/b\.png: 5x3 pixels, but .*b\.jpg has 40x56"):
        list(build_voc(root, None, workers=1))
    write_label(root / "SegmentationClass/b.png", np.full((56, 40), 21, np.uint8))
    with pytest.raises(UserError, match=r"SegmentationClass/b\.png: label value 21 is not a class here; allowed: 0-20"):
        list(build_voc(root, None, workers=1))


def test_a_mat_without_its_field_is_one_line(tmp_path, capsys):
    root = make_voc_sbd(tmp_path, IMAGES)
    savemat(root / SBD / "cls/c.mat", {"GTcls": {"Boundaries": 0}})
    assert guarded(prepare_data.main, ["voc", "--root", str(root), "--workers", "1"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "c.mat: has no label map GTcls.Segmentation" in error[0]
