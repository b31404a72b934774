import logging

import numpy as np
import pytest

from data.discovery import Views, data_root, read_novel_lists
from data.io import write_label
from utils.checkpoint import write_list
from utils.config.reader import load_config
from utils.errors import UserError


def views(tiny, *overrides) -> Views:
    return Views.open(load_config([str(tiny), *overrides], ""))


def test_label_spaces(tiny):
    v = views(tiny)
    assert (v.num_known, v.num_outputs) == (3, 6)  # background and two base classes; three clusters more
    assert v.split.names == ["background", "disc", "square", "bar", "dot"]
    labels = v.labelled(v.lists.val, v.split.full_map())
    assert [int(labels[i]["label"].unique()[-2]) for i in range(4)] == [1, 2, 3, 4]  # the last is 255
    base = v.labelled(v.lists.base, v.split.finetune_base_map(), train=True)
    assert len(base) == 24 and {"image", "label", "index", "size"} == base[0].keys()


def test_pseudo_labels_beyond_the_outputs_are_refused(tiny, tmp_path):
    v = views(tiny)
    name = v.lists.novel[0]
    path = tmp_path / "pseudo" / "pseudo_labels" / f"{name}.png"
    write_label(path, np.full((40, 40), 5, np.uint8))
    easy = v.pseudo_labelled([name], tmp_path / "pseudo", train=True)
    assert set(easy[0]["pseudo"].unique().tolist()) <= {0, 5}
    write_label(path, np.full((40, 40), 6, np.uint8))
    with pytest.raises(UserError, match=f"{name}.png: label value 6 is not a class here; allowed: 0-5, 255"):
        easy[0]


def test_hard_images_come_as_two_views_without_labels(tiny, tmp_path):
    v = views(tiny)
    hard = v.pseudo_labelled(v.lists.novel, tmp_path / "nothing", train=True, strong=True)
    assert hard[0].keys() == {"image", "strong", "index", "size"}


def test_dropped_images_are_counted_in_the_log(tiny, voc, tmp_path, caplog):
    root = tmp_path / "root"
    root.mkdir()
    for folder in ("images", "SegmentationClassAug", "sets"):
        (root / folder).symlink_to(voc / folder)
    v = views(tiny, f"data.root={root}", "data.missing=drop")
    kept = v.lists.novel[0]
    write_label(root / "saliency" / f"{kept}.png", np.ones((40, 40), np.uint8))
    with caplog.at_level(logging.INFO, "beyond_fixed_classes"):
        assert len(v.unlabelled(v.lists.novel)) == 1
    assert "23 of 24 images dropped" in caplog.text
    with pytest.raises(UserError, match="no such file"):
        views(tiny, f"data.root={root}").unlabelled(v.lists.novel)


def test_data_root(tiny, tmp_path, monkeypatch):
    config = load_config([str(tiny), "data.root=null", "data.dataset=demo"], "")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert data_root(config) == tmp_path
    monkeypatch.delenv("DATA_ROOT")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data.root=datasets/demo: no such folder"):
        data_root(config)
    (tmp_path / "datasets" / "demo").mkdir(parents=True)
    assert str(data_root(config)) == "datasets/demo"


def test_novel_lists_must_belong_to_the_data(tiny, tmp_path):
    v = views(tiny)
    write_list(tmp_path / "base.txt", list(v.lists.base[:2]))
    write_list(tmp_path / "novel.txt", list(v.lists.novel[:3]))
    assert read_novel_lists(tmp_path, v.lists) == (list(v.lists.base[:2]), list(v.lists.novel[:3]))
    write_list(tmp_path / "novel.txt", ["2007_000032"])
    with pytest.raises(UserError, match="novel.txt: image '2007_000032' has no novel class here"):
        read_novel_lists(tmp_path, v.lists)
    write_list(tmp_path / "novel.txt", list(v.lists.novel[:3]))
    for foreign in ("2007_000032", v.lists.novel[5]):  # the second one as in a folder made for another split
        write_list(tmp_path / "base.txt", [*v.lists.base[:2], foreign])
        with pytest.raises(UserError, match=f"base.txt: image '{foreign}' is not in this split's base list"):
            read_novel_lists(tmp_path, v.lists)
