import gzip
import hashlib
import json
from pathlib import Path

import pytest

from data.classes import SPLITS, ClassGroups, load_split
from data.discovery.lists import ImageLists, load_lists, write_lists
from data.layouts import COCO, VOC, find_layout
from data.source import DataContext
from utils.checkpoint import read_list, write_list
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError

PUBLISHED = json.loads((Path(__file__).parents[2] / "fixtures" / "discovery" / "lists.json").read_text())
COUNTS = {  # base_train, base only, novel, base_train and novel, base_val
    "fold0": (8829, 7746, 2836, 1083, 1165),
    "fold1": (8713, 6978, 3604, 1735, 1194),
    "fold2": (7679, 5040, 5542, 2639, 1129),
    "fold3": (9568, 8437, 2145, 1131, 1240),
    "fold4": (8309, 8309 - 858, 3131, 858, 1125),  # the official base list holds the 858 mixed images
}
COCO_COUNTS = {  # base_train, base only, novel, base_val
    "fold0": (62515, 21479, 60602, 30467),
    "fold1": (77860, 46398, 35683, 38008),
    "fold2": (78457, 55761, 26320, 38340),
    "fold3": (76902, 55189, 26892, 37506),
}
SPLIT = ClassGroups("own", ("background", "disc", "square", "bar", "dot", "rest"), ((1, 2), (3, 4)))
CLASSES = SPLIT.everything()


def context(root: Path, dataset="none", lists_dir=None, train_list=None, val_list=None) -> DataContext:
    data = {"dataset": dataset, "lists": lists_dir, "train_list": train_list, "val_list": val_list}
    cfg = DiscoveryConfig.model_validate({"data": data, "output_dir": root / "out"})
    return DataContext(cfg, root, find_layout(root))


def load(root: Path, split: ClassGroups = SPLIT, *names, **where) -> ImageLists:
    return load_lists(split, context(root, *names, **where))


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_files_are_the_published_ones(name):
    dataset, file = name.split("/")
    text = gzip.decompress((SPLITS / dataset / "lists" / file).read_bytes())
    assert len(text.split()) == PUBLISHED[name]["lines"]
    assert hashlib.sha256(text).hexdigest()[:16] == PUBLISHED[name]["sha256_16_of_text"]


@pytest.mark.parametrize("fold", COUNTS)
def test_shipped_lists_have_the_published_counts(fold, root):
    lists = load(root, load_split(fold, "pascal"), "pascal")
    base_train, base, novel = set(lists.base_train), set(lists.base), set(lists.novel)
    assert (len(base_train), len(base), len(novel), len(base_train & novel), len(lists.base_val)) == COUNTS[fold]
    assert base == base_train - novel
    assert lists.val == ("rest", "dot", "square")
    assert len(base | novel) == 10582  # every image of trainaug has one role
    if fold != "fold4":
        assert lists.base_train[: len(base)] == lists.base  # list order is kept


@pytest.mark.parametrize("fold", COCO_COUNTS)
def test_shipped_coco_lists_have_the_published_counts(fold, tmp_path):
    (tmp_path / "train2014").mkdir()
    lists = load(tmp_path, load_split(fold, "coco"), "coco")
    base_train, base, novel = set(lists.base_train), set(lists.base), set(lists.novel)
    assert (len(base_train), len(base), len(novel), len(lists.base_val)) == COCO_COUNTS[fold]
    assert base == base_train - novel and len(base_train | novel) == 82081
    assert len(lists.val) == 40137 and lists.val[0] == "COCO_val2014_000000000042"
    assert lists.base_train[0].startswith("COCO_train2014_0000000000")
    write_list(tmp_path / "val2014.txt", ["COCO_val2014_000000000073"])  # the user's own list has priority
    assert load(tmp_path, load_split(fold, "coco"), "coco").val == ("COCO_val2014_000000000073",)


def test_coco_lists_are_written_and_read_back(tmp_path):
    (tmp_path / "train2014").mkdir()
    split = load_split("fold2", "coco")
    lists = load(tmp_path, split, "coco")
    write_lists(lists, split.name, tmp_path / "lists", COCO)
    assert len(list((tmp_path / "lists").iterdir())) == 4
    assert load(tmp_path, split, "coco", lists_dir=tmp_path / "lists") == lists


def test_roles_follow_from_the_masks(root):
    assert load(root, train_list="all") == ImageLists(
        base_train=("both", "disc", "square"),
        base=("disc", "square"),
        novel=("both", "dot"),
        base_val=("square",),
        val=("rest", "dot", "square"),
    )
    assert load(root, train_list="all", val_list="all").base_val == ("both", "disc", "square")


def test_training_images_in_the_validation_list_are_counted(root, caplog):
    load(root, train_list="all")
    assert caplog.text.count("2 validation images are also trained on, such as 'dot'") == 1  # 'rest' has no role


def test_written_lists_are_read_back(root, tmp_path):
    lists = load(root, train_list="all")
    write_lists(lists, "own", tmp_path / "lists", VOC)
    names = {"base_train_own.txt", "own_base.txt", "own_novel.txt", "base_val_own.txt", "val.txt"}
    assert {path.name for path in (tmp_path / "lists").iterdir()} == names
    assert read_list(tmp_path / "lists" / "own_novel.txt") == ["both", "dot"]
    write_list(root / "sets" / "val.txt", ["disc"])  # the folder's own val.txt wins
    assert load(root, lists_dir=tmp_path / "lists", train_list="nothing") == lists


def test_own_lists_without_val_use_that_of_the_root(root, tmp_path):
    write_lists(load(root, train_list="all"), "own", tmp_path / "lists", VOC)
    (tmp_path / "lists" / "val.txt").unlink()
    assert load(root, lists_dir=tmp_path / "lists").val == ("rest", "dot", "square")
    assert load(root, lists_dir=tmp_path / "lists", val_list="all").val == (
        "both",
        "disc",
        "square",
        "dot",
        "rest",
        "empty",
    )


def test_novel_images_leave_the_base_list(root, tmp_path):
    write_lists(ImageLists(("b", "a"), ("c", "b", "a"), ("b",), ("v",), ("v",)), "own", tmp_path / "lists", VOC)
    lists = load(root, lists_dir=tmp_path / "lists")
    assert lists.base == ("c", "a") and lists.base_train == ("b", "a")


def test_shipped_lists_are_not_used_for_other_classes(root, tmp_path):
    """A user's split named fold1 must not silently use the images of the official fold 1."""
    (tmp_path / "fold1.yaml").write_text("novel: [cat]")
    for split in (load_split(str(tmp_path / "fold1.yaml"), "pascal"), SPLIT):
        with pytest.raises(UserError, match=f"split={split.name}: no image lists are shipped for these classes"):
            load(root, split, "pascal")


def test_lists_of_unknown_classes_are_those_of_the_root(root):
    """No mask is read: unlabelled images have none."""
    unknown = ClassGroups("unknown", SPLIT.classes, ((1, 2, 3, 4), ()))
    for name, ids in {"train": ["both", "disc"], "unlabelled": ["dot", "empty"]}.items():
        write_list(root / "sets" / f"{name}.txt", ids)
    found = load(root, unknown)
    assert found.base_train == found.base == ("both", "disc") and found.novel == ("dot", "empty")
    assert found.val == found.base_val == ("rest", "dot", "square")
    write_list(root / "sets" / "unlabelled.txt", ["dot", "disc"])
    with pytest.raises(UserError, match="image 'disc' is in the lists 'train' and 'unlabelled'"):
        load(root, unknown)


def test_empty_and_repeated_entries_are_errors(root):
    write_list(root / "sets" / "base.txt", ["disc", "square"])
    with pytest.raises(UserError, match="split=own: the image list 'novel' is empty"):
        load(root, train_list="base")
    write_list(root / "sets" / "twice.txt", ["dot", "disc", "disc", "square"])
    with pytest.raises(UserError, match="twice.txt: image 'disc' is twice in the list; keep it once"):
        load(root, train_list="twice", val_list="all")


def test_missing_lists_are_named(root, tmp_path):
    with pytest.raises(UserError, match=r"sets/nothing\.txt: no such image list, and none is shipped"):
        load(root, train_list="nothing")
    with pytest.raises(
        UserError, match=r"lists/base_train_own\.txt: no such list; data.lists needs base_train_own.txt"
    ):
        load(root, lists_dir=tmp_path / "lists")


def test_role_lists_of_the_data_root_are_taken(root):
    write_lists(load(root, train_list="all"), "own", root / "sets", VOC)
    write_list(root / "sets" / "own_novel.txt", ["dot"])
    assert load(root).novel == ("dot",)
    assert load(root, train_list="all").novel == ("both", "dot")  # a named list is scanned


def test_masks_of_real_images_agree_with_the_published_lists(voc_subset):
    """Every list of every fold, derived from the masks, is the published list restricted to the images at hand."""
    ids = set(read_list(voc_subset / "sets" / "trainaug.txt"))
    val = set(read_list(voc_subset / "sets" / "val.txt"))
    for fold in ("fold0", "fold1", "fold2", "fold3"):
        split = load_split(fold, "pascal")
        found, published = (load(voc_subset, split, "pascal", train_list=name) for name in ("trainaug", None))
        for role in ("base_train", "base", "novel"):
            assert set(getattr(found, role)) == set(getattr(published, role)) & ids
        assert set(found.base_val) == set(published.base_val) & val
