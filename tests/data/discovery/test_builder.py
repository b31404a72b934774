import logging

import numpy as np
import pytest
import torch

from data.discovery.builder import DiscoveryData, FineTuningImages, read_novel_lists
from data.io import write_label
from utils.checkpoint import write_list
from utils.config.reader import load_config
from utils.errors import UserError


def views(tiny, *overrides) -> DiscoveryData:
    return DiscoveryData.open(load_config([str(tiny), *overrides], ""))


def test_label_spaces(tiny):
    v = views(tiny)
    assert (v.num_known, v.num_outputs) == (3, 6)  # background and two base classes; three clusters more
    assert v.groups.names == ["background", "disc", "square", "bar", "dot"]
    labels = v.labelled(v.lists.val, v.full_map())
    assert [int(labels[i]["label"].unique()[-2]) for i in range(4)] == [1, 2, 3, 4]  # the last is 255
    base = v.labelled(v.lists.base, v.base_only_map(), train=True)
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
    assert f"23 of 24 images left out: 23 without a file in {root / 'saliency'}" in caplog.text
    with pytest.raises(UserError, match="no such file"):
        views(tiny, f"data.root={root}").unlabelled(v.lists.novel)


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


def test_more_clusters_than_eight_bits_hold(tiny, tmp_path):
    """300 clusters: outputs 3 to 302, so that label files have 16 bits, where 65535 is ignored and 255 is a cluster."""
    v = views(tiny, "cluster.k=300")
    name = v.lists.novel[0]
    path = tmp_path / "pseudo" / "pseudo_labels" / f"{name}.png"
    values = np.full((40, 40), 287, np.uint16)
    values[:10], values[10:20] = 255, 65535
    write_label(path, values)
    for train in (False, True):
        label = v.pseudo_labelled([name], tmp_path / "pseudo", train=train)[0]["pseudo"]
        assert label.dtype == torch.int32 and set(label.unique().tolist()) <= {0, 255, 287, 65535}
    assert {255, 287, 65535} <= set(label.unique().tolist())
    values[0] = 303
    write_label(path, values)
    with pytest.raises(UserError, match="label value 303 is not a class here; allowed: 0-302, 65535"):
        v.pseudo_labelled([name], tmp_path / "pseudo", train=False)[0]


def test_cluster_of_an_image_is_the_one_with_most_pixels(tiny, tmp_path):
    v = views(tiny)
    names = v.lists.novel[:3]
    few, most = np.full((40, 40), 1, np.uint8), np.full((40, 40), 5, np.uint8)
    most[:3], few[0, :2] = 4, 3  # base class 1 does not count, however large
    for name, label in zip(names, (most, few, np.zeros_like(few)), strict=True):
        write_label(tmp_path / "pseudo_labels" / f"{name}.png", label)
    assert FineTuningImages(v, tmp_path, [], names, 4).clusters(names) == [2, 0, -1]
