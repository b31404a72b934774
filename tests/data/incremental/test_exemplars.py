import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.incremental.exemplars import Candidate, choose_exemplars, describe, read_memory, write_memory
from utils.errors import UserError


def pick(candidates, num_old, size, seed=1):
    return choose_exemplars(candidates, num_old, size, np.random.RandomState(seed))


def test_what_a_label_shows():
    label = np.array([[0, 1, 2, 2, 4, 255]])  # unknown, background, classes 1 and 3
    assert describe("x", label, last_background=1) == Candidate("x", (1, 3), labels=4, pixels=3)
    assert describe("x", label, last_background=0) == Candidate("x", (1, 2, 4), labels=4, pixels=4)


def test_round_robin_by_hand():
    """Nothing shuffled: class 1 takes a, class 2 takes b, class 1 takes c, and then the memory is full."""

    class Still:
        def shuffle(self, values):
            pass

    candidates = [Candidate("a", (1, 2)), Candidate("b", (2,)), Candidate("c", (1,)), Candidate("d", (2,))]
    chosen = choose_exemplars(candidates, 3, 3, Still())
    assert {number: [c.id for c in picked] for number, picked in chosen.items()} == {1: ["a", "c"], 2: ["b"]}


def test_candidates_are_shuffled_before_classes():
    candidates = [Candidate(str(i), (1 + i % 3,)) for i in range(30)]
    rng = np.random.RandomState(5)
    order, classes = list(candidates), [1, 2, 3]
    rng.shuffle(order)
    rng.shuffle(classes)
    chosen = pick(candidates, 4, 3, seed=5)
    for number in classes:
        assert [c.id for c in chosen[number]] == [next(c.id for c in order if number in c.classes)]


def test_one_seed_one_memory():
    candidates = [Candidate(str(i), (1 + i % 3,)) for i in range(30)]
    assert pick(candidates, 4, 9) == pick(candidates, 4, 9) != pick(candidates, 4, 9, seed=2)


@given(st.lists(st.frozensets(st.integers(1, 4), max_size=3), max_size=25), st.integers(1, 12), st.integers(0, 99))
def test_a_memory_is_as_balanced_as_the_images_allow(found, size, seed):
    candidates = [Candidate(str(i), tuple(sorted(classes))) for i, classes in enumerate(found)]
    chosen = pick(candidates, 5, size, seed)
    ids = [c.id for picked in chosen.values() for c in picked]
    assert len(ids) == len(set(ids)) <= size
    assert all(number in c.classes for number, picked in chosen.items() for c in picked)
    useful = [c for c in candidates if c.classes]
    assert len(ids) == min(size, len(useful))  # also when there are fewer images than places
    left = {c.id: c for c in candidates if c.id not in ids}
    for number, picked in chosen.items():  # a class with fewer exemplars than another has no image left
        if len(picked) < max(map(len, chosen.values())) - 1:
            assert not any(number in c.classes for c in left.values())


def test_written_and_read(tmp_path):
    chosen = {1: [Candidate("b", (1,), 2, 30)], 2: [Candidate("a", (1, 2), 3, 40)]}
    write_memory(tmp_path / "memory.json", chosen, ["background", "disc", "bar"])
    assert read_memory(tmp_path / "memory.json") == [*chosen[1], *chosen[2]]
    assert '"disc": [' in (tmp_path / "memory.json").read_text()
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_memory(tmp_path / "none.json")


def test_no_memory_is_refused():
    with pytest.raises(UserError, match="ssul.memory=0"):
        pick([Candidate("a", (1,))], 2, 0)


@pytest.mark.parametrize(
    "content", ['{"x": 1}', '{"memory": [1]}', '{"memory": [{"id": "a"}]}', '{"memory": null}', "[]"]
)
def test_a_damaged_memory_is_one_line(tmp_path, content):
    (tmp_path / "memory.json").write_text(content)
    with pytest.raises(UserError, match="memory.json: "):
        read_memory(tmp_path / "memory.json")
