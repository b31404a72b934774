import numpy as np
import pytest

import prepare_data
from data.io import read_label
from data.layouts import VOC, find_layout
from data.prepare.context import build_context
from data.zeroshot.builder import ZeroShotData
from tests.zeroshot_data import make_context, scene
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.run import guarded

IMAGES = {"train": {"a": (1, 59), "b": (11, 36)}, "val": {"c": (52,)}}


@pytest.fixture
def raw(tmp_path):
    return make_context(tmp_path / "raw", IMAGES)


def arguments(raw, root, *more: str) -> list[str]:
    images = raw / "VOCdevkit/VOC2010/JPEGImages"
    where = {"--annotations": raw, "--images": images, "--root": root, "--workers": 1}
    return ["context", *(str(part) for pair in where.items() for part in pair), *more]


def test_459_labels_become_60_classes(raw, tmp_path, capsys):
    root = tmp_path / "new/context"
    assert guarded(prepare_data.main, arguments(raw, root)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{root}: 3 masks written to SegmentationClassAug",
        "train: 2 images, no fault; the official list has 4998",
        "val: 1 images, no fault; the official list has 5105",
        f"use them with data.dataset=context data.root={root}",
    ]
    assert find_layout(root) is VOC
    for place, (name, kinds) in enumerate(IMAGES["train"].items()):
        label = read_label(root / f"SegmentationClassAug/{name}.png")
        assert label.dtype == np.uint8 and np.array_equal(label, scene(place, kinds)[1])


def test_the_made_set_equals_the_annotations(raw, tmp_path):
    root = tmp_path / "made"
    list(build_context(root, raw / "full_annotations", raw / "VOCdevkit/VOC2010/JPEGImages", raw, workers=1))
    datasets = []
    for folder in (raw, root):
        tree = {"system": "zs3", "output_dir": tmp_path / "out", "data": {"dataset": "context", "root": folder}}
        data = ZeroShotData.open(ZeroShotConfig.model_validate(tree))
        assert [image.sample.id for image in data.seen_images] == ["a", "b"]
        datasets.append(data.step1_images(train=False))
    for index in range(2):
        assert np.array_equal(datasets[0].native(index), datasets[1].native(index))


def test_a_second_run_writes_nothing(raw, tmp_path, capsys):
    root = tmp_path / "made"
    assert guarded(prepare_data.main, arguments(raw, root)) == 0
    before = {path: path.stat().st_mtime_ns for path in (root / "SegmentationClassAug").iterdir()}
    capsys.readouterr()
    assert guarded(prepare_data.main, arguments(raw, root)) == 0
    assert f"{root}: 0 masks written" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (root / "SegmentationClassAug").iterdir()}


def test_what_is_missing_is_said(raw, tmp_path):
    images = raw / "VOCdevkit/VOC2010/JPEGImages"
    with pytest.raises(UserError, match=r"no folder trainval with \.mat files; download trainval.tar.gz .*labels.txt"):
        list(build_context(tmp_path / "made", tmp_path / "none", images))
    with pytest.raises(UserError, match="none: no such folder; download VOCtrainval_03-May-2010.tar .* its JPEGImages"):
        list(build_context(tmp_path / "made", raw, tmp_path / "none"))
    with pytest.raises(UserError, match="holds the annotations themselves, which are read as they are"):
        list(build_context(raw, raw, images))
    (raw / "train.txt").write_text("a\nd\ne\n")
    with pytest.raises(UserError, match="no annotation of 'd' and 1 more of the list 'train'; .* VOC 2010"):
        list(build_context(tmp_path / "made", raw, images))
    (raw / "train.txt").unlink()
    with pytest.raises(UserError, match=r"no train\.txt and val\.txt; give the folder VOC2010/ImageSets/Main"):
        list(build_context(tmp_path / "made", raw, images))
    (raw / "full_annotations/labels.txt").unlink()
    (raw / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"labels\.txt: no such file; expected the list of Pascal-Context's labels"):
        list(build_context(tmp_path / "made", raw, images))
    assert not (tmp_path / "made").exists()
