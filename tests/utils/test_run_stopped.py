"""How a run ends that does not finish: signals, devices that are not there, trouble of the machine."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.utils.test_run import ROOT, refusal, start
from utils import checkpoint
from utils.errors import Interrupted
from utils.run import guarded


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_a_stage_without_checkpoints_at_once(tiny, number):
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP, in the tests, too
    try:
        with pytest.raises(Interrupted, match="the same command does this stage again"), start(tiny):
            os.kill(os.getpid(), number)
            time.sleep(5)
    finally:
        signal.signal(number, before)
    with start(tiny) as run:
        assert not run.finished


def test_a_second_interrupt_does_not_wait(tiny):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with start(tiny) as run:
            run.saves_on_signal = True
            os.kill(os.getpid(), signal.SIGINT)
            assert run.stop_requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so(tiny):
    """nohup ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with start(tiny) as run:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not run.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_handlers_are_put_back(tiny):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with start(tiny):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("device", ["cuda:99", "cuda"])
def test_no_such_device(tiny, device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert f"device={device}: this machine has no usable CUDA device" in refusal(tiny, f"device={device}")
    for other in ("gpu", "mps", "meta", "cpu:3:4"):
        assert f"device={other}: unknown" in refusal(tiny, f"device={other}")


def test_a_gpu_with_a_number_that_is_not_there(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert "device=cuda:2: this machine has 2 CUDA devices; use cuda:0 to cuda:1" in refusal(tiny, "device=cuda:2")


def test_training_without_tensorboard(tiny, monkeypatch, capsys):
    """A package that does not fit its neighbours raises anything at import."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with start(tiny) as run:
        for step in (1, 2):
            run.record(step, {"train": {"loss": 0.5}})
    assert len((run.dir / "history.jsonl").read_text().splitlines()) == 2
    assert capsys.readouterr().out.count("warning: no TensorBoard events (ModuleNotFoundError") == 1


class Deadly(torch.utils.data.Dataset):
    """Its worker is killed, as by the kernel when memory runs out."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/last.pth"), "out/last.pth: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/a.png"), "/x/a.png: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "a text file is not UTF-8"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory (Unable to allocate 9 GiB); a smaller batch_size"),
    ],
)
def test_trouble_of_the_machine_is_one_line(error, said, capsys):
    def main(argv):
        raise error

    assert guarded(main) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {said}") and shown.count("\n") == 1


def test_a_dead_loader_worker_is_one_line(capsys):
    assert guarded(lambda argv: list(torch.utils.data.DataLoader(Deadly(), num_workers=1))) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: DataLoader worker (pid") and "fewer data.workers need less" in shown


def test_ctrl_c_before_anything_can_be_saved(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert guarded(main) == 130 and capsys.readouterr().err == "interrupted\n"


def test_mistakes_of_the_program_keep_their_traceback():
    def main(argv):
        raise KeyError("a")

    with pytest.raises(KeyError):
        guarded(main)


def test_sigterm_to_a_process_saves_and_exits_75(tiny, tmp_path):
    """A real process with loader workers, as a batch system ends it; then the same command finishes."""
    folder = tmp_path / "out" / "two" / "base"
    argv = [str(tiny), "base_training.epochs=1000", "base_training.log_every=1", "data.workers=1"]
    argv += ["model.backbone=efficientnet_lite0", "evaluation.batch_size=12"]
    process = subprocess.Popen([sys.executable, "train_base.py", *argv], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    try:
        wait_for(folder / "history.jsonl", process)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, error
    assert "Traceback" not in error and "saved; the same command continues" in error
    progress = checkpoint.load(folder / "last.pth")["progress"]
    steps = [json.loads(line)["step"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert progress["step"] == max(steps) and not (folder / "metrics.json").exists()
    assert not list(folder.rglob(".*.tmp"))


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=5)
        time.sleep(0.05)
