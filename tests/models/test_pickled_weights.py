"""Pickles of numpy arrays are read, of every protocol and of numpy 1; nothing else in a pickle is."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from models.weights import read_weights
from utils.errors import UserError

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.zeros(0, np.float64)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol):
    more = {"__author__": "zoo", "matching_heuristics": True, "best": np.float64(3), "note": b"x"}
    content = {"model": OrderedDict(ARRAYS, big=np.arange(2, dtype=">f4"), counter=np.array(7)), **more}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
    file = read_weights(tmp_path / "w.pkl")
    assert file.state.keys() == {"a.weight", "b.bias", "big", "counter"}
    assert torch.equal(file.state["a.weight"], torch.arange(6.0).view(2, 3))
    assert file.state["big"].tolist() == [0, 1] and int(file.state["counter"]) == 7
    assert file.extra == more
    file.state["a.weight"] += 1  # writable: the tensor owns its memory


def test_numpy_1_and_python_2_names(tmp_path):
    written = pickle.dumps(ARRAYS, 2).replace(b"numpy._core", b"numpy.core")
    assert written != pickle.dumps(ARRAYS, 2)
    (tmp_path / "w.pkl").write_bytes(written)
    assert read_weights(tmp_path / "w.pkl").state.keys() == ARRAYS.keys()


class Runs:
    """An object whose pickle runs a command."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_another_object_is_refused_by_name_and_not_made(tmp_path, protocol):
    marker = tmp_path / "made"
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({**ARRAYS, "x": Runs(Path.touch, marker)}, protocol))
    with pytest.raises(UserError, match=r"w\.pkl: not a readable checkpoint \(it asks for .*(Path\.touch|getattr)"):
        read_weights(path)
    assert not marker.exists()
    path.write_bytes(pickle.dumps([Runs(eval, "1")], protocol))
    with pytest.raises(UserError, match="eval; only numpy arrays and plain containers are read"):
        read_weights(path)


def test_other_codecs_and_damage_are_refused(tmp_path):
    import _codecs

    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(Runs(_codecs.encode, "x", "utf-7"), 2))
    with pytest.raises(UserError, match="bytes in utf-7"):
        read_weights(path)
    whole = pickle.dumps(ARRAYS, 4)
    for damaged in (b"", whole[: len(whole) // 2], b"hello", b"\x80\x04."):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"w\.pkl: not a readable checkpoint \(\w"):
            read_weights(path)
    with pytest.raises(UserError, match="none.pkl: no such checkpoint"):
        read_weights(tmp_path / "none.pkl")
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match=r"w\.pkl: holds a list, not a dictionary of weights"):
        read_weights(path)


def test_a_file_of_torch_may_have_that_name(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "w.pkl")
    assert read_weights(tmp_path / "w.pkl").state["a"].tolist() == [1, 1]
