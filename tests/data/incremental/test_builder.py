import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.classes import SPLITS, ClassGroups, load_task
from data.incremental.builder import head_sizes, select
from data.lists import shipped_presence
from utils.errors import UserError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "incremental"
PRESENCE = {(d, p): shipped_presence(d, p) for d in ("pascal", "ade") for p in ("train", "val")}
# training images per step, from the method's description
FROM_10_1 = ([528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548], [188, 868, 227, 201, 3247, 378, 299, 420, 500, 548])
FROM_5_1 = (
    [385, 1086, 1000, 1081, 264, *FROM_10_1[0]],
    [139, 566, 812, 220, 216, *FROM_10_1[1]],
)
COUNTS = {
    "pascal/offline": ([10582], [10582]),
    "pascal/19-1": ([10410, 548], [10034, 548]),
    "pascal/15-5": ([9568, 2145], [8437, 2145]),
    "pascal/15-1": ([9568, 487, 299, 491, 500, 548], [8437, 378, 299, 420, 500, 548]),
    "pascal/10-1": ([6139, *FROM_10_1[0]], [3706, *FROM_10_1[1]]),
    "pascal/5-5": ([2836, 3604, 5542, 2145], [1753, 1953, 4731, 2145]),
    "pascal/5-3": ([2836, 2331, 1542, 2095, 4484, 1468], [1753, 1517, 624, 1296, 3924, 1468]),
    "pascal/5-1": ([2836, *FROM_5_1[0]], [1753, *FROM_5_1[1]]),
    "pascal/2-2": (
        [1072, 1151, 1039, 2080, 1345, 1701, 925, 4236, 790, 1048],
        [653, 936, 303, 1378, 436, 1056, 428, 3625, 719, 1048],
    ),
    "pascal/2-1": ([1072, 698, 461, 654, *FROM_5_1[0]], [653, 641, 295, 164, *FROM_5_1[1]]),
    "ade/offline": ([20196], [20196]),
    "ade/100-50": ([20192, 9390], [10806, 9390]),
    "ade/100-10": ([20192, 1710, 2294, 2747, 4279, 2844], [10806, 861, 1009, 1445, 3231, 2844]),
    "ade/100-5": (
        [20192, 1142, 600, 1234, 1204, 1151, 1874, 1807, 2943, 1238, 1898],
        [10806, 597, 264, 499, 510, 493, 952, 1040, 2191, 946, 1898],
    ),
    "ade/50-50": ([20177, 13186, 9390], [4838, 5968, 9390]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_images_per_step_are_the_published_ones(name):
    dataset, task = name.split("/")
    task = load_task(task, dataset)
    for setting, expected in zip(("overlap", "disjoint"), COUNTS[name], strict=True):
        found = [len(select(task, PRESENCE[dataset, "train"], step, setting)) for step in range(len(task.groups))]
        assert found == expected, setting


def test_official_lists():
    assert [len(PRESENCE[key]) for key in PRESENCE] == [10582, 1449, 20210, 2000]
    assert PRESENCE["pascal", "train"][0] == ("2007_000032", frozenset({1, 15}))


@pytest.mark.parametrize("path", sorted(SPLITS.glob("*/tasks/*.yaml")), ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_every_shipped_task(path):
    task = load_task(path.stem, path.parts[-3])
    foreground = len(task.classes) - 1
    assert sorted(task.order) == list(range(foreground + 1)) and task.num_seen(len(task.groups) - 1) == foreground + 1
    if "-" in path.stem:
        first, others = path.stem.split("_")[0].split("-")
        assert [len(step) for step in task.groups] == [int(first), *[int(others)] * (len(task.groups) - 1)]
        assert ("_" in path.stem) != (task.order == tuple(range(foreground + 1)))


def test_labels_are_those_of_the_official_code():
    """All data sets except the unknown class, which is added on the device."""
    arrays = np.load(FIXTURES / "labels.npz")
    for entry in json.loads((FIXTURES / "labels_index.json").read_text()):
        if entry["unknown"]:
            continue
        dataset = {"voc": "pascal"}.get(entry["dataset"], entry["dataset"])
        task, step = load_task(entry["task"], dataset), entry["step"]
        maps = {"memory": task.label_map(range(step + 1)), "test": task.everything()}
        label = maps.get(entry["image_set"], task.label_map([step]))(arrays[f"{entry['dataset']}_mask"])
        assert np.array_equal(label, arrays[entry["key"]]), entry


# ---- the user's own tasks

CLASSES = ("background", "disc", "square", "bar", "dot")
TASK = ClassGroups("own", CLASSES, ((3, 1), (4,)))


def test_train_ids_follow_the_steps():
    assert TASK.order == (0, 3, 1, 4) and TASK.names == ["background", "bar", "disc", "dot"]
    assert [TASK.num_seen(step) for step in (0, 1)] == [3, 4]
    assert [list(TASK.ids(step)) for step in (0, 1)] == [[1, 2], [3]]
    mask = np.array([[0, 1, 2, 3, 4, 255]], np.uint8)
    assert TASK.label_map([0])(mask).tolist() == [[0, 2, 0, 1, 0, 255]]
    assert TASK.label_map([1])(mask).tolist() == [[0, 0, 0, 0, 3, 255]]
    assert TASK.label_map(range(1))(mask).tolist() == [[0, 2, 0, 1, 0, 255]]
    assert TASK.everything()(mask).tolist() == [[0, 2, 0, 1, 3, 255]]  # square is in no step: background


def test_disjoint_of_a_reordered_task():
    """Step 0 learns bar (3) and disc (1), step 1 dot (4): an image with bar and dot waits for step 1."""
    presence = [("a", frozenset({1, 3})), ("b", frozenset({3, 4})), ("c", frozenset({2})), ("d", frozenset({2, 3}))]
    assert select(TASK, presence, 0, "overlap") == ["a", "b", "d"] and select(TASK, presence, 1, "overlap") == ["b"]
    assert select(TASK, presence, 0, "disjoint") == ["a", "d"] and select(TASK, presence, 1, "disjoint") == ["b"]


@given(st.permutations(range(1, 7)), st.integers(1, 5), st.lists(st.frozensets(st.integers(1, 6)), max_size=20))
def test_disjoint_images_belong_to_one_step(order, cut, found):
    task = ClassGroups("own", tuple("abcdefg"), (tuple(order[:cut]), tuple(order[cut:])))
    presence = [(str(i), classes) for i, classes in enumerate(found)]
    steps = [set(select(task, presence, step, "disjoint")) for step in (0, 1)]
    assert not steps[0] & steps[1] and steps[0] | steps[1] == {name for name, classes in presence if classes}
    for step in (0, 1):
        assert steps[step] <= set(select(task, presence, step, "overlap"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [[disc], [sqare]]", "unknown class 'sqare'.*did you mean 'square'"),
        ("steps: [[disc], [square, 1]]", "class 'disc' is in two steps"),
        ("steps: [[disc, disc]]", "class 'disc' is in two steps, or twice in one"),
        ("steps: [[disc], []]", "step 1 has no class"),
        ("steps: []", "expected the key 'steps'"),
        ("novel: [disc]", "expected the key 'steps'"),
        ("steps: [disc]", "expected a list of class names"),
    ],
)
def test_a_faulty_task_is_one_line_with_the_file(tmp_path, text, message):
    (tmp_path / "classes.yaml").write_text("[background, disc, square, bar, dot]")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_task(str(tmp_path / "own.yaml"), str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}: ") and "\n" not in str(caught.value)


def test_unknown_task_names_those_there_are():
    with pytest.raises(UserError, match="task=15-2: no such task of pascal; it has 10-1, 15-1"):
        load_task("15-2", "pascal")
    with pytest.raises(UserError, match="data.dataset=demo: no image lists are shipped"):
        shipped_presence("demo", "train")


def test_heads_of_a_network_tell_whether_there_is_an_unknown_class():
    assert head_sizes(TASK, 1, True) == (1, 1, 2, 1) == head_sizes(TASK, 1, (1, 1, 2, 1))
    assert head_sizes(TASK, 1, False) == (3, 1) == head_sizes(TASK, 1, (3, 1))
    assert head_sizes(TASK, 0, False) == (3,)
