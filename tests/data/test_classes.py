import json
from pathlib import Path

import numpy as np
import pytest

from data.classes import SPLITS, ClassGroups, load_classes, load_split
from utils.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "discovery"
OFFICIAL = json.loads((FIXTURES / "c6_class_maps.json").read_text())


def official_split(name: str) -> ClassGroups:
    dataset, fold = name.split("_")
    return load_split(fold, dataset)


@pytest.mark.parametrize("name", OFFICIAL)
def test_maps_are_those_of_the_official_code(name):
    expected, split = OFFICIAL[name], official_split(name)
    values = np.array([[*range(len(split.classes)), 255]], np.uint8)[:, : len(expected["val"])]  # COCO has no 255
    novel = list(split.groups[1])
    assert novel == expected.get("novel", novel)
    assert split.label_map([0])(values)[0].tolist() == expected["base_train"]
    assert split.everything()(values)[0].tolist() == expected["val"]
    if "finetune_base" in expected:
        table = split.label_map([0], ignored=[1]).table
        assert (table[novel] == 255).all()  # which the official code does not expect in these images
        rest = set(np.flatnonzero(table >= 0).tolist()) - set(novel)
        assert {str(old): int(table[old]) for old in sorted(rest)} == expected["finetune_base"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_training_ids_lead_back_to_the_original_ones(name):
    split = official_split(name)
    values = np.arange(len(split.classes), dtype=np.uint8)[None]
    assert np.array_equal(np.array(split.order)[split.everything()(values)], values)
    assert split.names == [split.classes[i] for i in split.order]
    assert len(split.names) == 1 + sum(map(len, split.groups))


def test_pascal_fold_one_by_hand():
    split = load_split("fold1", "pascal")
    assert (split.name, *map(len, split.groups)) == ("fold1", 15, 5)
    assert split.names[:7] == ["background", "aeroplane", "bicycle", "bird", "boat", "bottle", "diningtable"]
    assert split.names[16:] == ["bus", "car", "cat", "chair", "cow"]
    assert split.label_map([0], ignored=[1])(np.array([[0, 6, 11]], np.uint8)).tolist() == [[0, 255, 6]]
    with pytest.raises(UserError, match="label value 21 is not a class here; allowed: 0-20, 255"):
        split.label_map([0], ignored=[1])(np.array([[0, 21]], np.uint8))


@pytest.mark.parametrize("dataset", ["pascal", "demo"])
def test_folds_part_the_twenty_classes(dataset):
    splits = [load_split(f"fold{i}", dataset) for i in range(4)]
    assert [split.groups[1] for split in splits] == [tuple(range(1 + 5 * i, 6 + 5 * i)) for i in range(4)]
    assert all(sorted(sum(split.groups, ())) == list(range(1, 21)) for split in splits)


def test_every_shipped_split_can_be_read():
    for path in SPLITS.glob("*/*.yaml"):
        if path.stem != "classes":
            assert load_split(str(path), path.parent.name) == load_split(path.stem, path.parent.name)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "classes.yaml").write_text("[background, disc, square, bar, dot]")
    return tmp_path


def load(folder: Path, text: str) -> ClassGroups:
    (folder / "own.yaml").write_text(text)
    return load_split("own", str(folder))


def test_names_and_numbers_in_any_order(folder):
    split = load(folder, "novel: [dot, 2, square]  # 2 is the square, too")
    assert split == ClassGroups("own", ("background", "disc", "square", "bar", "dot"), ((1, 3), (2, 4)))
    assert load_split(str(folder / "own.yaml"), str(folder)) == split


def test_a_class_in_neither_list_is_background(folder):
    split = load(folder, "novel: [dot]\nbase: [bar, disc]")
    values = np.array([[0, 1, 2, 3, 4, 255]], np.uint8)
    assert split.label_map([0])(values).tolist() == [[0, 1, 0, 2, 0, 255]]
    assert split.everything()(values).tolist() == [[0, 1, 0, 2, 3, 255]]
    assert split.label_map([0], ignored=[1])(values[:, :4]).tolist() == [[0, 1, 0, 2]]


def test_nobody_knows_the_novel_classes(folder):
    split = load(folder, "novel: unknown")
    assert split.groups == ((1, 2, 3, 4), ()) and split.names == ["background", "disc", "square", "bar", "dot"]
    assert load(folder, "novel: unknown\nbase: [bar]").groups == ((3,), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("novel: [sqare]", "unknown class 'sqare'.*did you mean 'square'"),
        ("novel: [zebra]", "unknown class 'zebra' .*1-4.*classes: disc, square, bar, dot"),
        ("novel: [0]", "unknown class '0'"),
        ("novel: [background]", "unknown class 'background'"),
        ("novel: [5]", "unknown class '5'"),
        ("novel: [-1]", "unknown class '-1'"),
        ("novel: dot", "expected a list of class names or numbers, got 'dot'"),
        ("novel: [dot]\nbase: [dot, bar]", "class 'dot' is in base and in novel"),
        ("novel: []", "expected the key 'novel'"),
        ("novle: [dot]", "expected the key 'novel'"),
        ("novel: [dot]\nnew: [bar]", "expected the key 'novel'"),
        ("[dot]", "expected the key 'novel'"),
    ],
)
def test_a_faulty_split_is_one_line_with_the_file(folder, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load(folder, text)
    assert str(caught.value).startswith(f"{folder / 'own.yaml'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "disc: 1\nbar: 2", "[background]", "[background, disc, disc]"])
def test_a_faulty_class_list(folder, text):
    (folder / "classes.yaml").write_text(text)
    with pytest.raises(UserError, match=r"classes\.yaml: expected a list of 2 to 65535 different class names"):
        load(folder, "novel: [disc]")


def test_unknown_split_and_data_set_list_the_choices(tmp_path):
    with pytest.raises(UserError, match="split=fold9: .* use one of 15-5, fold0, fold1, fold2, fold3, fold4, unseen10"):
        load_split("fold9", "pascal")
    with pytest.raises(UserError, match=f"split={tmp_path}/none.yaml: no such split"):
        load_split(f"{tmp_path}/none.yaml", "pascal")
    with pytest.raises(
        UserError,
        match="data.dataset=pascl: no class list; use one of ade, camvid, coco, cocostuff, cocostuff10k, context, demo",
    ):
        load_split("fold0", "pascl")


def test_seen_and_unseen_are_groups_like_base_and_novel(folder):
    split = load(folder, "unseen: [square]")
    assert split.groups == ((1, 3, 4), (2,)) and split.names == ["background", "disc", "bar", "dot", "square"]
    with pytest.raises(UserError, match="class 'dot' is in seen and in unseen"):
        load(folder, "unseen: [dot]\nseen: [dot]")


def test_a_data_set_without_background(folder):
    """Number 0 is a class; classes of no group are ignored, as there is no background."""
    (folder / "classes.yaml").write_text("classes: [sky, road, car, tree]\nbackground: null\n")
    split = load(folder, "novel: [car]\nbase: [sky, tree]")
    assert (split.order, split.names) == ((0, 3, 2), ["sky", "tree", "car"])
    assert (split.num_seen(0), split.num_seen(1), list(split.ids(1))) == (2, 3, [2])
    values = np.array([[0, 1, 2, 3, 255]], np.uint8)
    assert split.label_map([0])(values).tolist() == [[0, 255, 255, 1, 255]]
    assert split.everything()(values).tolist() == [[0, 255, 2, 1, 255]]
    assert load_classes(str(folder)).background is None
