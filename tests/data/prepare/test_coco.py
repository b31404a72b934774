"""COCO masks with results computed by hand, and a complete data root."""

import json

import numpy as np
import pytest

import prepare_data
from data.io import read_label
from data.layouts import index_samples
from data.prepare import coco as coco_masks
from data.prepare.coco import Drawing, build_coco, draw, read_drawings, region
from utils.checkpoint import read_list
from utils.errors import UserError
from utils.run import guarded

SQUARE = [2, 2, 7, 2, 7, 7, 2, 7]  # x, y of four corners
FAR = [12.9, 2.9, 15.9, 2.9, 15.9, 5.9, 12.9, 5.9]
CROWD = {"size": [10, 20], "counts": [0, 30, 170]}  # the first three columns


def annotation(image: int, category: int, segmentation, crowd: int = 0) -> dict:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


@pytest.fixture
def folder(tmp_path):
    """Images and annotations of a COCO with two categories, whose numbers have a gap as the real ones."""
    for part, first in (("train2014", 1), ("val2014", 5)):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / part).mkdir()
        images = []
        for number in range(first, first + 4):
            name = f"COCO_{part}_{number:012d}"
            (tmp_path / part / f"{name}.jpg").touch()
            images.append({"id": number, "file_name": f"{name}.jpg", "height": 10, "width": 20})
        annotations = [
            annotation(first, 90, [SQUARE, FAR]),
            annotation(first, 3, [[5, 5, 9, 5, 9, 9, 5, 9]]),
            annotation(first, 3, CROWD, crowd=1),
            annotation(first + 1, 3, CROWD, crowd=1),  # nothing but a crowd: no mask
            annotation(first + 3, 3, [SQUARE]),
        ]
        content = {"images": images[::-1], "annotations": annotations, "categories": [{"id": 3}, {"id": 90}]}
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_published_rule_draws_the_first_polygon_with_its_border():
    mask = draw(Drawing("x", 10, 20, [(2, [SQUARE, FAR], False), (1, [[5.9, 5, 9, 5, 9, 9]], False)]), "published")
    expected = np.zeros((10, 20), np.uint8)
    expected[2:8, 2:8] = 2
    for row in range(5, 10):
        expected[row, row:10] = 1  # the later object covers the earlier one; 5.9 is cut to 5
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("library", ["pycocotools", "opencv"])
def test_correct_rule_draws_all_parts_and_ignores_crowds(library, monkeypatch):
    if library == "opencv":
        monkeypatch.setattr(coco_masks, "coco_mask", None)
    elif coco_masks.coco_mask is None:
        pytest.skip("pycocotools is not installed")
    objects = [(2, [SQUARE, FAR], False), (1, CROWD, True)]
    mask = draw(Drawing("x", 10, 20, objects), "correct")
    assert (mask[:, :2] == 255).all() and mask[0, 2] == 255 and mask[9, 2] == 255
    assert (mask[3:6, 3:6] == 2).all() and mask[4, 2] == 2  # the object lies over the crowd
    assert (mask[3:5, 13:15] == 2).all() and (mask[:, 17:] == 0).all()
    assert 25 <= (mask[:, :10] == 2).sum() <= 36 and 9 <= (mask[:, 10:] == 2).sum() <= 16


def test_run_lengths_go_down_the_columns(monkeypatch):
    monkeypatch.setattr(coco_masks, "coco_mask", None)
    mask = region({"size": [2, 3], "counts": [1, 2, 2, 1]}, 2, 3)
    assert mask.tolist() == [[False, True, False], [True, False, True]]


def test_a_root_that_is_read_back(folder, tmp_path):
    root = tmp_path / "root"
    arguments = ["coco", "--images", str(folder), "--annotations", str(folder / "annotations"), "--root", str(root)]
    assert guarded(prepare_data.main, arguments) == 0
    ids = ["COCO_train2014_000000000001", "COCO_train2014_000000000004"]
    assert read_list(root / "train2014.txt") == ids  # those with an object, by number
    assert read_list(root / "val2014.txt") == ["COCO_val2014_000000000005", "COCO_val2014_000000000008"]
    one, _ = index_samples(root, ids, fields=("image", "label"))
    assert np.unique(read_label(one.label)).tolist() == [0, 1, 2]
    assert len(list((root / "masks_train2014").iterdir())) == 2


def test_a_stopped_drawing_goes_on_and_keeps_what_is_there(folder, tmp_path):
    root = tmp_path / "root"
    build_coco(root, folder, folder / "annotations", "published", workers=1)
    masks = sorted((root / "masks_train2014").iterdir())
    masks[0].unlink()
    kept = masks[1].stat().st_mtime_ns
    assert build_coco(root, folder, folder / "annotations", "published", workers=1) == {"train2014": 2, "val2014": 2}
    assert masks[0].exists() and masks[1].stat().st_mtime_ns == kept
    with pytest.raises(UserError, match="holds masks drawn by the rule 'published'"):
        build_coco(root, folder, folder / "annotations", "correct")


def test_wrong_input_is_one_line(folder, tmp_path, capsys):
    root = tmp_path / "root"
    where = ["--annotations", str(folder / "annotations"), "--root", str(root)]
    assert guarded(prepare_data.main, ["coco", "--images", str(tmp_path / "none"), *where]) == 2
    assert "no folder 'train2014'" in capsys.readouterr().err
    (folder / "annotations" / "instances_train2014.json").write_text('{"images": []}')
    assert guarded(prepare_data.main, ["coco", "--images", str(folder), *where]) == 2
    assert "instances_train2014.json: not a COCO instances file" in capsys.readouterr().err
    (folder / "annotations" / "instances_train2014.json").unlink()
    assert guarded(prepare_data.main, ["coco", "--images", str(folder), *where]) == 2
    assert "instances_train2014.json: no such file" in capsys.readouterr().err


SECOND = {  # what annotation tools write for the second object, and the error or the pixels of class 2
    "no outline": ({"segmentation": []}, 0),
    "run lengths": ({"segmentation": {"size": [10, 20], "counts": [20, 5, 175]}}, 5),
    "ids as words": ({"image_id": "1", "category_id": "90"}, 36),
    "no iscrowd": ({"iscrowd": None}, 36),
    "a box": ({"segmentation": [[5.0, 5.0, 20.0, 20.0]]}, "a polygon has 4 numbers, expected x, y of three points"),
    "a flat box": ({"segmentation": [5.0, 5.0, 20.0, 20.0]}, "expected a list of polygons"),
    "a point": ({"segmentation": [[5.0, 5.0]]}, "a polygon has 2 numbers"),
    "seven numbers": ({"segmentation": [[5, 5, 9, 5, 9, 9, 5]]}, "a polygon has 7 numbers"),
    "no number": ({"segmentation": [[5, 5, float("nan"), 5, 9, 9]]}, "a coordinate that is no number"),
    "runs of another size": ({"segmentation": {"size": [9, 20], "counts": [180]}}, "run lengths of [9, 20] pixels"),
    "short runs": ({"segmentation": {"size": [10, 20], "counts": [20, 5]}}, "run lengths of 25 pixels"),
    "words": ({"segmentation": "polygon"}, "segmentation is a str"),
    "an image that is not there": ({"image_id": 77}, "image_id 77 is not one of the images"),
    "a category that is not there": ({"category_id": 4}, "category_id 4 is not one of the categories"),
}


@pytest.mark.parametrize("case", SECOND)
@pytest.mark.parametrize("rule", ["published", "correct"])
def test_what_annotation_tools_write_is_drawn_or_refused(folder, monkeypatch, case, rule):
    monkeypatch.setattr(coco_masks, "coco_mask", None)
    changes, expected = SECOND[case]
    path = folder / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    second = {"id": 8} | annotation(1, 90, [SQUARE]) | changes
    second = {key: value for key, value in second.items() if value is not None}
    content["annotations"] = [annotation(1, 3, [FAR]), second]
    path.write_text(json.dumps(content))
    if isinstance(expected, str):
        with pytest.raises(UserError, match=r"instances_train2014\.json: annotation 8: ") as caught:
            list(read_drawings(path))
        assert expected in str(caught.value)
        return
    (drawing,) = read_drawings(path)
    mask = draw(drawing, rule)
    found = np.count_nonzero(mask == 2)
    assert found == expected if rule == "published" or expected != 36 else 25 <= found <= 36  # borders
    assert np.count_nonzero(mask == 1) >= 9


def test_compressed_run_lengths_need_pycocotools(folder, monkeypatch):
    path = folder / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    packed = {"size": [10, 20], "counts": "PP0000"}
    content["annotations"] = [{"id": 8} | annotation(1, 3, packed)]
    path.write_text(json.dumps(content))
    monkeypatch.setattr(coco_masks, "coco_mask", None)
    with pytest.raises(UserError, match="annotation 8: a mask of compressed run lengths needs pycocotools"):
        list(read_drawings(path))
