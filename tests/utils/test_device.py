"""The device that --device names."""

import pytest
import torch

from utils.device import find_device
from utils.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices, and an Apple GPU or not."""

    def build(count: int, apple: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return build


@pytest.mark.parametrize(
    ("count", "apple", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_a_device_that_is_there(machine, count, apple, name, device):
    machine(count, apple)
    assert find_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "name", "said"),
    [
        (0, "cuda", "this machine has no usable CUDA device; use --device cpu"),
        (2, "cuda:2", "this machine has 2 CUDA devices; use cuda:0 to cuda:1"),
        (0, "mps", "this machine has no usable Apple GPU; use --device cpu"),
        (0, "gpu", "unknown; use auto, cpu, cuda, cuda:N or mps"),
        (0, "", "unknown; use auto"),
        (0, "meta", "unknown; use auto"),
        (0, "cuda:x", "unknown; use auto"),
    ],
)
def test_any_other_is_one_line(machine, count, name, said):
    machine(count, False)
    with pytest.raises(UserError, match=f"^--device {name}: {said}"):
        find_device(name)
