"""Labels in every format, on a few pixels with known results."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from data.prepare.annotations import read_annotations
from utils.errors import UserError

SIZE = (4, 6)  # height, width
LEFT = np.repeat([[1, 1, 1, 0, 0, 0]], 4, 0)  # the left half of a picture of class 1


def save(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), mode).save(path)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_index_masks_have_class_numbers(tmp_path):
    values = LEFT.copy()
    values[0, 5] = 255
    save(tmp_path / "masks" / "a.png", values)
    (tmp_path / "classes.txt").write_text("background\ndog\n")
    found = read_annotations(tmp_path / "masks", names=tmp_path / "classes.txt")
    assert found.names == ("background", "dog")
    assert (found.draw["a"](SIZE) == values).all()
    assert read_annotations(tmp_path / "masks").names == ("background", "class 1")


def test_a_value_without_name_and_another_size_are_errors(tmp_path):
    save(tmp_path / "masks" / "a.png", LEFT * 2)
    (tmp_path / "classes.txt").write_text("background\ndog\n")
    with pytest.raises(UserError, match=r"a\.png: value 2, but --names has 2 classes, 0 to 1"):
        read_annotations(tmp_path / "masks", names=tmp_path / "classes.txt").draw["a"](SIZE)
    with pytest.raises(UserError, match=r"a\.png: 6x4 pixels, but its image has 8x4"):
        read_annotations(tmp_path / "masks").draw["a"]((4, 8))


@pytest.mark.parametrize("table", ["name,red,green,blue\ndog,250,0,7\nvoid,1,1,1\n", "dog:250,0,7::\nvoid:1,1,1::\n"])
def test_colours_become_numbers(tmp_path, table):
    rgb = np.zeros((*SIZE, 3))
    rgb[:, :3], rgb[0, 5] = (250, 0, 7), (1, 1, 1)
    save(tmp_path / "masks" / "a.png", rgb)
    (tmp_path / "classes.csv").write_text(table)
    found = read_annotations(tmp_path / "masks", colors=tmp_path / "classes.csv")
    expected = LEFT.copy()
    expected[0, 5] = 255
    assert found.names == ("background", "dog")
    assert (found.draw["a"](SIZE) == expected).all()


def test_colour_masks_want_their_colours(tmp_path):
    save(tmp_path / "masks" / "a.png", np.full((*SIZE, 3), 9))
    with pytest.raises(UserError, match=r"a\.png: a colour picture; give --colors FILE"):
        read_annotations(tmp_path / "masks")
    (tmp_path / "classes.csv").write_text("dog,250,0,7\n")
    with pytest.raises(UserError, match=r"a\.png: colour \(9, 9, 9\) is of no class"):
        read_annotations(tmp_path / "masks", colors=tmp_path / "classes.csv").draw["a"](SIZE)
    (tmp_path / "classes.csv").write_text("dog,250,0,7\ncat,250,0,7\n")
    with pytest.raises(UserError, match="'dog' and 'cat' have the same colour"):
        read_annotations(tmp_path / "masks", colors=tmp_path / "classes.csv")


def test_coco_polygons_and_run_lengths(tmp_path):
    things = [
        {"image_id": 7, "category_id": 18, "segmentation": [[0, 0, 2.9, 0, 2.9, 4, 0, 4]]},
        {"image_id": "7", "category_id": 3, "segmentation": {"size": [4, 6], "counts": [20, 4]}, "iscrowd": 0},
        {"image_id": 7, "category_id": 3, "segmentation": {"size": [4, 6], "counts": [12, 4, 8]}, "iscrowd": 1},
    ]
    images = [{"id": k, "file_name": f"shots/{name}.JPG", "height": 4, "width": 6} for k, name in ((7, "a"), (8, "b"))]
    names = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}]
    path = write_json(tmp_path / "coco.json", {"images": images, "annotations": things, "categories": names})
    found = read_annotations(path)
    assert found.names == ("background", "dog", "cat")
    assert found.draw.keys() == {"a"}  # b has no annotation: it counts as one without labels
    assert (found.draw["a"](SIZE) == [[1, 1, 1, 255, 0, 2]] * 4).all()
    with pytest.raises(UserError, match="image 'a' was drawn on 6x4 pixels, but it has 8x4"):
        found.draw["a"]((4, 8))


def test_a_file_of_another_kind_is_no_coco_file(tmp_path):
    with pytest.raises(UserError, match=r"x\.json: not a COCO instances file"):
        read_annotations(write_json(tmp_path / "x.json", {"shapes": []}))


def test_labelme_shapes(tmp_path):
    inside = io.BytesIO()
    Image.fromarray(np.ones((2, 1), np.uint8)).save(inside, "PNG")
    shapes = [
        {"label": "dog", "shape_type": "rectangle", "points": [[0.5, 0.5], [2.5, 3.5]]},
        {"label": "cat", "shape_type": "polygon", "points": [[5.5, 0.5], [5.5, 3.5], [5.5, 0.5]]},
        {
            "label": "cat",
            "shape_type": "mask",
            "points": [[3, 1]],
            "mask": base64.b64encode(inside.getvalue()).decode(),
        },
        {"label": "__ignore__", "points": [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]},
        {"label": "cat", "shape_type": "point", "points": [[1, 1]]},
    ]
    write_json(tmp_path / "labels" / "a.json", {"shapes": shapes, "imageHeight": 4, "imageWidth": 6})
    write_json(tmp_path / "labels" / "b.json", {"shapes": []})
    found = read_annotations(tmp_path / "labels")
    assert found.names == ("background", "cat", "dog")
    expected = [[255, 2, 2, 0, 0, 1], [2, 2, 2, 1, 0, 1], [2, 2, 2, 1, 0, 1], [2, 2, 2, 0, 0, 1]]
    assert found.draw["a"](SIZE).tolist() == expected
    assert not found.draw["b"](SIZE).any()
    with pytest.raises(UserError, match=r"a\.json: drawn on 6x4 pixels, but its image has 8x4"):
        found.draw["a"]((4, 8))


POLYGON = {"label": "dog", "points": [[0, 0], [3, 0], [3, 3]]}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (POLYGON | {"points": [1, 2, 3]}, "cannot reshape"),
        (POLYGON | {"points": [["a", "b"]]}, "could not convert"),
        (POLYGON | {"points": [[float("nan"), 1], [2, 3], [4, 5]]}, "far outside"),
        (POLYGON | {"points": [[1e300, 1], [2, 3], [4, 5]]}, "far outside"),
        (POLYGON | {"shape_type": "mask"}, "no 'mask'"),
        (POLYGON | {"shape_type": "mask", "mask": "§"}, "ASCII"),
        (POLYGON | {"shape_type": "mask", "mask": "aaaa"}, "cannot identify"),
        (POLYGON | {"shape_type": "ellipse"}, "a ellipse of 3 points"),
        ({"label": "dog"}, "no 'points'"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_one_line(tmp_path, shape, said):
    write_json(tmp_path / "a.json", {"shapes": [POLYGON, shape]})
    with pytest.raises(UserError, match=r"a\.json: shape 1, 'dog': ") as caught:
        read_annotations(tmp_path).draw["a"](SIZE)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_that_begins_outside_is_cut_off(tmp_path):
    inside = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.uint8)).save(inside, "PNG")
    mask = {"label": "dog", "shape_type": "mask", "mask": base64.b64encode(inside.getvalue()).decode()}
    write_json(tmp_path / "a.json", {"shapes": [mask | {"points": [[-1, -2]]}, mask | {"points": [[5, 3]]}]})
    expected = [[1, 1, 0, 0, 0, 0], [0] * 6, [0] * 6, [0, 0, 0, 0, 0, 1]]
    assert read_annotations(tmp_path).draw["a"](SIZE).tolist() == expected


@pytest.mark.parametrize("name", ["Dog", "d og", "", "two\nlines", None])
def test_classes_that_differ_by_a_slip_or_have_no_name(tmp_path, name):
    write_json(tmp_path / "a.json", {"shapes": [POLYGON, POLYGON | {"label": name}]})
    with pytest.raises(UserError, match="differ in capitals or spaces alone|is called"):
        read_annotations(tmp_path)
    write_json(tmp_path / "a.json", {"shapes": [POLYGON, POLYGON | {"label": " dog "}]})
    assert read_annotations(tmp_path).names == ("background", "dog")


@pytest.mark.parametrize("key", ["images", "categories"])
def test_coco_ids_are_there_once(tmp_path, key):
    things = [{"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3]]}]
    image = {"id": 7, "file_name": "a.jpg", "height": 4, "width": 6}
    content = {"images": [image], "annotations": things, "categories": [{"id": 1, "name": "dog"}]}
    content[key] = content[key] + [content[key][0] | {"name": "cat", "file_name": "b.jpg"}]
    with pytest.raises(UserError, match=r"coco\.json: the (image|category) id '\d' occurs twice"):
        read_annotations(write_json(tmp_path / "coco.json", content))


def test_a_pipe_is_not_waited_for(tmp_path):
    save(tmp_path / "a.png", LEFT)
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: not a file"):
        read_annotations(tmp_path)


def test_options_that_nothing_reads_are_refused(tmp_path):
    save(tmp_path / "masks" / "a.png", LEFT)
    path = write_json(tmp_path / "coco.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(UserError, match="--names .*: not used, .* read as COCO"):
        read_annotations(path, names=tmp_path / "classes.txt")
    with pytest.raises(UserError, match="no such file or folder"):
        read_annotations(tmp_path / "nowhere")
