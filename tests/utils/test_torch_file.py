"""Files of torch.save: what is read, and the one line for everything else."""

import argparse
import fractions
import os
import pathlib
import pickle
import resource
import warnings

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.torch_file import read_torch, save_torch


class Command:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return os.system, ("echo never",)


def refusal(path) -> str:
    with warnings.catch_warnings(), pytest.raises(UserError) as caught:
        warnings.simplefilter("error")
        read_torch(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_command_line_and_numpy_numbers_beside_the_weights(tmp_path, zipped):
    state = {"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.1, names=["a"]), "best": np.float64(0.5)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "a.pth")
    assert found["args"] == state["args"] and found["best"] == 0.5 and found["model"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "thing, name",
    [
        (fractions.Fraction(1, 2), "fractions.Fraction"),
        (pathlib.PurePosixPath("a"), "pathlib"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (Command(), "posix.system"),
    ],
)
def test_what_is_refused_is_named(tmp_path, zipped, thing, name):
    torch.save({"model": thing}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert f"it contains a {name}" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_pickles(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    for thing, name in ((Command(), "posix.system"), (fractions.Fraction(1, 2), "fractions.Fraction")):
        path.write_bytes(pickle.dumps({"a": thing}, protocol))
        assert f"it contains a {name}, and loading that could run code" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}, 4))
    assert "a plain pickle of protocol 4; write it with torch.save" in refusal(path)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html>\n<html>404", "a web page"),
        (b"<HTML><body>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\x1f\x8b\x08\x00" + b"0" * 99, "compressed with gzip"),
        (b"words of any kind", "truncated, or not a torch.save file"),
        (b"PK\x03\x04" + b"0" * 99, "damaged: its archive cannot be read"),
    ],
)
def test_files_of_other_kinds(tmp_path, content, said):
    (tmp_path / "a.pth").write_bytes(content)
    assert said in refusal(tmp_path / "a.pth")


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert "not a file" in refusal(tmp_path / "pipe") and "not a file" in refusal(tmp_path)
    assert "no such checkpoint" in refusal(tmp_path / "none.pth")


def test_a_full_disk_is_the_error_of_the_system(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_torch(tmp_path / "a.pth", {"w": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
