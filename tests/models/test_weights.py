"""One way to read a weights file, one message when it does not fit."""

import hashlib

import pytest
import torch
from torch import nn

from models.weights import load_strict, read_weights
from utils import checkpoint
from utils.errors import UserError
from utils.log import log


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.mark.parametrize(
    "wrap", ["state_dict", "model", "model_state", "model_state_dict", "net", "ema", "teacher", None]
)
def test_wrappers_and_prefixes_are_taken_off_and_the_rest_is_kept(tmp_path, wrap):
    state = {f"module.{key}": value for key, value in network().state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    file = read_weights(tmp_path / "w.pth")
    assert file.state.keys() == network().state_dict().keys()
    assert file.extra == ({"epoch": 3} if wrap else {})
    assert read_weights(file) is file  # what was read is passed on


def test_a_file_without_weights_shows_its_keys(tmp_path):
    torch.save({"optimizer": {}, "weights": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth: no weights in it; its keys are optimizer, weights, known ones state"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_refused(tmp_path, value, kind):
    state = {"a": torch.ones(3, dtype=kind), "b.weight": torch.ones(4, dtype=kind), "n": torch.ones(2).long()}
    state["b.weight"][1:3] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth: b.weight holds 2 values that are not finite"):
        read_weights(tmp_path / "w.pth")


def test_large_finite_weights_are_not_refused(tmp_path):
    """Their sum overflows."""
    torch.save({"a": torch.full((9,), 3e38), "b": torch.full((9,), 6e4).half()}, tmp_path / "w.pth")
    assert len(read_weights(tmp_path / "w.pth").state) == 2


def test_counters_of_batchnorm_may_be_missing():
    state = {key: value for key, value in network().state_dict().items() if "num_batches" not in key}
    load_strict(network(), state, "w.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.pop("0.bias"),
            "w.pth: does not fit the network (6 of 7 tensors fit: 0.bias is missing there); try",
        ),
        (lambda s: s.update(extra=torch.ones(1)), "(7 of 7 tensors fit: extra is not in this network); try"),
        (
            lambda s: s.update({"0.weight": torch.ones(4, 2)}),
            "(6 of 7 tensors fit: 0.weight has shape (4, 2) there, (3, 2) here); try",
        ),
    ],
)
def test_a_misfit_names_the_key_and_both_shapes_and_changes_nothing(change, said):
    model, state = network(), network().state_dict()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change(state)
    with pytest.raises(UserError) as caught:
        load_strict(model, state, "w.pth", "try another file")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_some_keys_may_keep_their_values():
    model, other = network(), network()
    state = {key: value for key, value in other.state_dict().items() if key.startswith("1.")}
    bias = model[0].bias.clone()
    load_strict(model, state, "w.pth", leave=["0."])
    assert torch.equal(model[0].bias, bias)


def test_files_of_others_are_told_by_their_checksum_once(tmp_path, capsys, monkeypatch):
    """Of our own files nothing is said; in a run it goes into the log."""
    monkeypatch.setattr(log, "handlers", [])
    torch.save({"a": torch.ones(1)}, tmp_path / "theirs.pth")
    checkpoint.save(tmp_path / "ours.pth", {"model": {"a": torch.ones(1)}})
    for name in ("theirs.pth", "ours.pth", "theirs.pth"):
        read_weights(tmp_path / name)
    sha = hashlib.sha256((tmp_path / "theirs.pth").read_bytes()).hexdigest()
    assert capsys.readouterr().out == f"theirs.pth: not written here, sha256 {sha}\n"
