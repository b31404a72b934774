import logging
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from data.io import read_voc_label, write_label
from data.layouts import LAYOUTS, VOC, Sample, find_layout, ids_of_part, index_samples
from utils.errors import UserError

IDS = ["a", "b", "c"]


def fill(root, folder: str, names=IDS, ending=".png"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / f"{name}{ending}").touch()


@pytest.fixture
def root(tmp_path):
    fill(tmp_path, "images", ending=".jpg")
    fill(tmp_path, "SegmentationClassAug")
    fill(tmp_path, "SegmentationClass", ["a"])
    fill(tmp_path, "saliency_supervised_model", ["a", "c"])
    fill(tmp_path, "sets", [])
    return tmp_path


def test_paths_of_the_asked_fields_in_the_order_of_the_ids(root):
    samples = index_samples(root, ["c", "a"], fields=("image", "label"))
    assert samples == [
        Sample(name, root / f"images/{name}.jpg", root / f"SegmentationClassAug/{name}.png", read_label=read_voc_label)
        for name in "ca"
    ]
    assert samples[0].saliency is None and samples[0].pseudo is None


def test_all_fields(root):
    (sample,) = index_samples(root, ["a"], fields=("image", "label", "saliency"))
    assert sample.saliency == root / "saliency_supervised_model" / "a.png"


def test_label_folder_is_taken_as_asked(root):
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (sample,) = index_samples(root, ["a"], fields=("label", "image"), label_folder=folder)
        assert sample.label.parent.name == folder


def test_folders_of_the_voc_devkit(tmp_path):
    fill(tmp_path, "JPEGImages", ending=".jpg")
    fill(tmp_path, "SegmentationClass")
    fill(tmp_path, "saliency")
    fill(tmp_path, "ImageSets/Segmentation", [])
    (sample,) = index_samples(tmp_path, ["a"], fields=("image", "label", "saliency"))
    assert [p.parent.name for p in (sample.image, sample.label, sample.saliency)] == [
        "JPEGImages", "SegmentationClass", "saliency",
    ]  # fmt: skip
    assert VOC.folder(tmp_path, "sets") == tmp_path / "ImageSets" / "Segmentation"


def test_coco_folders_follow_from_the_image_id(tmp_path):
    ids = ["COCO_val2014_000000000042", "COCO_train2014_000000000025"]
    for name, part in zip(ids, ("val2014", "train2014"), strict=True):
        fill(tmp_path, part, [name], ".jpg")
        fill(tmp_path, f"masks_{part}", [name])
        fill(tmp_path, "saliency_supervised_model", [name])
    for folder in ("SegmentationClass", "SegmentationClassAug"):  # the one folder of masks serves both
        one, two = index_samples(tmp_path, ids, fields=("image", "label", "saliency"), label_folder=folder)
        assert one.image == tmp_path / "val2014" / f"{ids[0]}.jpg"
        assert two.label == tmp_path / "masks_train2014" / f"{ids[1]}.png"
        assert two.saliency == tmp_path / "saliency_supervised_model" / f"{ids[1]}.png"
    with pytest.raises(UserError, match="image id '25' in a list: not one of this layout .*COCO_train2014_<12 digits>"):
        index_samples(tmp_path, ["25"], fields=("image",))


def test_images_without_a_map_are_dropped_when_asked(root, caplog):
    with caplog.at_level(logging.INFO, "beyond_fixed_classes"):
        samples = index_samples(root, IDS, fields=("image", "saliency"), missing="drop")
        assert [sample.id for sample in samples] == ["a", "c"]
        index_samples(root, ["a"], fields=("image", "saliency"), missing="drop")  # drops nothing, logs nothing
    folder = root / "saliency_supervised_model"
    assert caplog.messages == [f"1 of 3 images left out: 1 without a file in {folder}"]


def test_only_the_path_of_a_missing_map_is_left_out_when_asked(root):
    samples = index_samples(root, IDS, fields=("image", "saliency"), missing="none")
    assert [sample.id for sample in samples] == IDS and [bool(s.saliency) for s in samples] == [True, False, True]
    with pytest.raises(UserError, match=r"images/d\.jpg: no such file"):
        index_samples(root, ["d"], fields=("image",), missing="none")


def test_a_missing_map_is_one_line_with_its_path(root):
    with pytest.raises(UserError) as caught:
        index_samples(root, IDS, fields=("image", "saliency"))
    message, path = str(caught.value), root / "saliency_supervised_model" / "b.png"
    assert message.startswith(f"{path}: no such file, but 'b' is in the image list") and "\n" not in message


def test_a_missing_image_is_an_error_in_any_case(root):
    for missing in ("error", "drop"):
        with pytest.raises(UserError, match=r"images/d\.jpg: no such file"):
            index_samples(root, ["a", "d"], fields=("image", "saliency"), missing=missing)


def test_missing_folders_are_named(root):
    with pytest.raises(UserError, match="has no folder 'Masks'; expected layout: images/<id>.jpg"):
        index_samples(root, IDS, fields=("image", "label"), label_folder="Masks")
    with pytest.raises(UserError, match="has no folder 'images'"):
        index_samples(root / "nowhere", IDS, fields=("image",))


def test_a_file_added_since_the_last_index_is_seen(root):
    assert len(index_samples(root, IDS, fields=("image", "saliency"), missing="drop")) == 2
    fill(root, "saliency_supervised_model", ["b"])
    assert len(index_samples(root, IDS, fields=("image", "saliency"), missing="drop")) == 3


def test_folders_are_listed_once_and_files_never_touched(root, monkeypatch):
    calls = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: calls.append(path) or listdir(path))
    index_samples(root, IDS * 50, fields=("image", "label"))
    assert len(calls) == 2


def test_real_files(voc_subset):
    ids = (voc_subset / "sets" / "trainaug_mixed.txt").read_text().split()
    samples = index_samples(voc_subset, ids, fields=("image", "label", "saliency"))
    assert [sample.id for sample in samples] == ids
    assert all(path.is_file() for path in (samples[0].image, samples[0].label, samples[0].saliency))


def test_ade20k_layout(tmp_path):
    """Both parts, and the flat folders of the small sample."""
    for part, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000002")):
        for folder, suffix in ((f"images/{part}", "jpg"), (f"annotations/{part}", "png")):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / f"{name}.{suffix}").touch()
    found = index_samples(tmp_path, ["ADE_val_00000002", "ADE_train_00000001"], fields=("image", "label"))
    assert found[0].image == tmp_path / "images" / "validation" / "ADE_val_00000002.jpg"
    assert found[1].label == tmp_path / "annotations" / "training" / "ADE_train_00000001.png"
    with pytest.raises(UserError, match="image id 'x' in a list: not one of this layout"):
        index_samples(tmp_path, ["x"], fields=("image",))


def detectron2_root(
    root: Path, parts: tuple[str, str], ids: tuple[str, str], images: str = "images_detectron2"
) -> Path:
    for part, name in zip(parts, ids, strict=True):
        fill(root, f"{images}/{part}", [name], ".jpg")
        fill(root, f"annotations_detectron2/{part}", [])
        write_label(root / "annotations_detectron2" / part / f"{name}.png", np.array([[0, 149, 255]], np.uint8))
    return root


@pytest.mark.parametrize(
    ("parts", "images"),
    [
        (("train", "test"), "images_detectron2"),
        (("training", "validation"), "images_detectron2"),
        (("training", "validation"), "images"),
    ],
)
def test_ade20k_prepared_for_detectron2_under_every_name_of_its_folders(tmp_path, parts, images):
    ids = "ADE_train_00000001", "ADE_val_00000002"
    root = detectron2_root(tmp_path, parts, ids, images)
    layout = find_layout(root)
    assert layout is LAYOUTS["ade_detectron2"]
    found = index_samples(root, ids, fields=("image", "label"))
    assert [sample.image for sample in found] == [
        root / images / p / f"{n}.jpg" for p, n in zip(parts, ids, strict=True)
    ]
    assert found[1].label == root / "annotations_detectron2" / parts[1] / f"{ids[1]}.png"
    assert found[0].load_label().tolist() == [[1, 150, 0]]  # the numbers of ADE20K's own masks
    assert [ids_of_part(root, layout, part) for part in ("train", "val")] == [[ids[0]], [ids[1]]]
    fill(root, "images/training", ids[:1], ".jpg")
    fill(root, "annotations/training", ids[:1])
    assert find_layout(root) is LAYOUTS["ade"]  # its own masks, which are PNG already


def test_coco_stuff_prepared_for_detectron2(tmp_path):
    """Ids have no part; images without a mask are in no list; .mat files are not read."""
    ids = "COCO_train2014_000000000009", "COCO_train2014_000000000077"
    root = detectron2_root(tmp_path, ("train", "test"), ids)
    fill(root, "images_detectron2/train", ["COCO_train2014_000000000001"], ".jpg")
    for folder in ("images", "annotations", "imageLists"):
        fill(root, folder, [])
    layout = find_layout(root)
    assert layout is LAYOUTS["cocostuff_detectron2"]
    train, test = index_samples(root, ids, fields=("image", "label"))
    assert train.image == root / "images_detectron2" / "train" / f"{ids[0]}.jpg"
    assert test.label == root / "annotations_detectron2" / "test" / f"{ids[1]}.png"
    assert test.load_label().tolist() == [[0, 149, 255]]
    assert [ids_of_part(root, layout, part) for part in ("train", "test")] == [[ids[0]], [ids[1]]]
    with pytest.raises(
        UserError, match=r"annotations_detectron2/train/x\.png: no such file, but 'x' is in the image list"
    ):
        index_samples(root, ["x"], fields=("label",))


MATLAB = {  # layout: (label folder, content of a file with the label map `values`)
    "sbd": ("cls", lambda values: {"GTcls": {"Segmentation": values, "Boundaries": 0}}),
    "cocostuff": ("annotations", lambda values: {"S": values}),
    "context": ("full_annotations/trainval", lambda values: {"LabelMap": values}),
}


def matlab_root(folder: Path, kind: str, values: np.ndarray) -> Path:
    labels, content = MATLAB[kind]
    (folder / labels).mkdir(parents=True)
    savemat(folder / labels / "one.mat", content(values))
    (folder / ("img" if kind == "sbd" else "images")).mkdir()
    (folder / ("img" if kind == "sbd" else "images") / "one.jpg").touch()
    return folder


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("sbd", np.array([[0, 20, 3]], np.uint8), np.array([[0, 20, 3]], np.uint8)),
        ("cocostuff", np.array([[1, 2, 183]], np.uint8), np.array([[255, 0, 181]], np.uint8)),  # 1 is unlabelled
        ("context", np.array([[1, 255, 459]], np.uint16), np.array([[1, 255, 459]], np.uint16)),
    ],
)
def test_matlab_layouts_are_told_by_their_folders_and_read(tmp_path, kind, stored, expected):
    root = matlab_root(tmp_path, kind, stored)
    assert find_layout(root) is LAYOUTS[kind]
    (sample,) = index_samples(root, ["one"], fields=("image", "label"))
    label = sample.read_label(sample.label)
    assert label.dtype == expected.dtype and np.array_equal(label, expected)


@pytest.mark.parametrize(("kind", "name"), [("sbd", "GTcls.Segmentation"), ("cocostuff", "S"), ("context", "LabelMap")])
def test_a_matlab_file_without_its_map_is_one_line(tmp_path, kind, name):
    root = matlab_root(tmp_path, kind, np.zeros((2, 2), np.uint8))
    (sample,) = index_samples(root, ["one"], fields=("image", "label"))
    savemat(sample.label, {"GTcls": {"Boundaries": 0}} if kind == "sbd" else {"other": 1})
    with pytest.raises(UserError, match=rf"one\.mat: has no label map {name}; expected a matrix of class numbers"):
        sample.read_label(sample.label)
    sample.label.write_bytes(b"no MATLAB file at all, but longer than the header of one" * 9)
    with pytest.raises(UserError, match=r"one\.mat: not a readable MATLAB file"):
        sample.read_label(sample.label)


def test_coco_stuff_is_not_taken_for_ade(tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    assert find_layout(tmp_path) is LAYOUTS["ade"]
    (tmp_path / "imageLists").mkdir()
    assert find_layout(tmp_path) is LAYOUTS["cocostuff"]
    assert find_layout(tmp_path, "ade") is LAYOUTS["ade"]  # data.layout has the last word


def test_a_folder_of_own_pictures(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a.JPG", "b.png"):
        (tmp_path / "images" / name).touch()
        (tmp_path / "labels" / f"{name[0]}.png").touch()
    assert find_layout(tmp_path) is LAYOUTS["folder"]
    samples = index_samples(tmp_path, ["a", "b"], fields=("image", "label"))
    assert [s.image.name for s in samples] == ["a.JPG", "b.png"] and samples[1].label == tmp_path / "labels" / "b.png"
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(UserError, match=r"two images are called 'a'"):
        index_samples(tmp_path, ["a"], fields=("image",))


def test_pictures_of_other_endings_and_spellings_in_a_voc_root(tmp_path):
    """Endings as cameras and converters write them; the published .jpg precedes another file of the same name."""
    for name in ("JPEGImages/a.JPG", "JPEGImages/b.jpeg", "JPEGImages/c.tif", "JPEGImages/d.png", "JPEGImages/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "JPEGImages" / "cafe\u0301.jpg").touch()
    samples = index_samples(tmp_path, ["a", "b", "c", "d", "caf\u00e9"], fields=("image",))
    assert [sample.image.name for sample in samples] == ["a.JPG", "b.jpeg", "c.tif", "d.jpg", "cafe\u0301.jpg"]
    (tmp_path / "JPEGImages" / "b.png").touch()
    with pytest.raises(UserError, match=r"two images are called 'b'"):
        index_samples(tmp_path, ["b"], fields=("image",))


@pytest.mark.parametrize(("kind", "wrong"), [("sbd", 256), ("cocostuff", 257), ("context", 1.5), ("context", -1)])
def test_matlab_values_that_do_not_fit_are_named(tmp_path, kind, wrong):
    """They would wrap around to other classes: 256 in SBD to background."""
    root = matlab_root(tmp_path, kind, np.array([[1, wrong]]))
    (sample,) = index_samples(root, ["one"], fields=("image", "label"))
    with pytest.raises(UserError, match=r"one\.mat: values .* expected whole class numbers from 0 to"):
        sample.read_label(sample.label)


def test_a_voc_folder_with_sbd_in_it_is_vocs(tmp_path):
    (tmp_path / "benchmark_RELEASE/dataset/cls").mkdir(parents=True)
    assert find_layout(tmp_path) is LAYOUTS["sbd"]
    (tmp_path / "SegmentationClass").mkdir()
    assert find_layout(tmp_path) is LAYOUTS["voc"]
