"""The exit status of several processes is that of one."""

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from utils.launch import main


@pytest.mark.parametrize("status, expected", [(75, 75), (2, 2), (1, 1), (-9, 137)])
def test_status_of_the_first_that_failed(monkeypatch, tmp_path, status, expected):
    first, later = (ProcessFailure(rank, 100 + rank, code, "none") for rank, code in ((1, status), (0, -15)))
    first.timestamp, later.timestamp = 10, 20

    def failing(arguments):
        raise ChildFailedError("train_base.py", {0: later, 1: first})

    monkeypatch.setattr(run, "main", failing)
    assert main(["--nproc_per_node=2", "train_base.py"]) == expected


def test_a_signal_and_none(monkeypatch):
    seen = []

    def stopped(arguments):
        raise SignalException("stopped", 15)

    monkeypatch.setattr(run, "main", seen.append)
    assert main(["--standalone", "train_base.py", "a.yaml"]) == 0
    assert seen[0][-3:] == ["--standalone", "train_base.py", "a.yaml"]
    monkeypatch.setattr(run, "main", stopped)
    assert main(["train_base.py"]) == 75
