"""Clusters of a pseudo-label folder replace the classes of later steps."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.classes import ClassGroups
from data.incremental.builder import IncrementalData
from data.incremental.cluster_task import with_clusters
from data.io import read_label
from tests.conftest import CLASSES
from utils.checkpoint import read_list, write_list
from utils.config.reader import load_config
from utils.errors import UserError

TASK = ClassGroups("t", ("background", *"abcdefg"), ((1, 2), (3, 4, 5), (6,), (7,)))


def load(config, pseudo, *overrides) -> IncrementalData:
    options = ["setting=discovered", f"pseudo_dir={pseudo}", *overrides]
    return IncrementalData.open(load_config([str(config), *options], ""))


def test_steps_take_clusters_in_proportion_to_their_classes():
    assert with_clusters(TASK, 5).groups == ((1, 2), (8, 9, 10), (11,), (12,))
    assert with_clusters(TASK, 10).groups == ((1, 2), (8, 9, 10, 11, 12, 13), (14, 15), (16, 17))
    assert with_clusters(TASK, 5).classes[8:] == tuple(f"cluster {k}" for k in range(5))


@given(st.integers(3, 60))
def test_every_cluster_is_learned_once(count):
    steps = with_clusters(TASK, count).groups
    assert [number for step in steps[1:] for number in step] == list(range(8, 8 + count))


def test_images_and_labels_of_each_step(task_config, pseudo, voc):
    """bar (3) is cluster 0, dot (4) cluster 1; masks of unlabelled images are never read."""
    steps = load(task_config, pseudo)
    base, novel = read_list(pseudo / "base.txt"), read_list(pseudo / "novel.txt")
    values = {name: set(np.unique(read_label(pseudo / "pseudo_labels" / f"{name}.png"))) for name in novel}
    assert steps.train_ids(0) == base
    for step, value in ((1, 3), (2, 4)):
        assert steps.train_ids(step) == [name for name in novel if value in values[name]]
        dataset = steps.train(step)
        assert {sample.label.parent for sample in dataset.samples} == {pseudo / "pseudo_labels"}
        found = {int(v) for index in range(len(dataset)) for v in np.unique(dataset[index]["label"])}
        assert found == {0, value}
    mixed = steps.exemplars([base[0], novel[0]], 2, train=False)
    expected = [read_label(voc / "SegmentationClassAug" / f"{base[0]}.png"), None]
    expected[1] = read_label(pseudo / "pseudo_labels" / f"{novel[0]}.png")
    for index, label in enumerate(expected):
        assert np.array_equal(mixed[index]["label"], label)


def test_classes_of_the_outputs_follow_the_match(task_config, pseudo):
    steps = load(task_config, pseudo)
    known = [(number, CLASSES[number]) for number in range(3)]
    assert steps.output_classes(0, {}) == known
    assert steps.output_classes(2, {"match": [[0, 1], [1, -1]]}) == [*known, (4, "dot"), (255, "unmatched cluster")]
    spec = steps.test_protocol(1).spec
    assert (list(spec.names), spec.num_outputs, spec.num_known, spec.complete) == (CLASSES, 4, 3, False)


def test_a_folder_that_does_not_fit_is_refused(task_config, pseudo, tmp_path):
    with pytest.raises(UserError, match="pseudo_dir: missing"):
        IncrementalData.open(load_config([str(task_config), "setting=discovered"], ""))
    with pytest.raises(UserError, match="method=joint: labels are needed"):
        load(task_config, pseudo, "method=joint")
    other = shutil.copytree(pseudo, tmp_path / "other")
    write_list(other / "base.txt", [*read_list(other / "base.txt"), read_list(other / "novel.txt")[0]])
    with pytest.raises(UserError, match="holds 'bar', which task=abc learns later; made for another split"):
        load(task_config, other)
    few = shutil.copytree(pseudo, tmp_path / "few")
    write_list(few / "novel.txt", [name for name in read_list(few / "novel.txt") if int(name[1:]) % 4 == 2])
    with pytest.raises(UserError, match="1 clusters, but task=abc has 2 later steps"):
        load(task_config, few)
