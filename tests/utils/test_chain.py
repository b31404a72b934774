"""Chains of commands: which are skipped, how they run, and how they stop."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train_base
from tests.utils.test_loop import SMALL
from utils import chain
from utils.chain import Chain, parse
from utils.errors import UserError
from utils.run import guarded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(tmp_path):
    """Writes a script, whose path is the first word of a command."""

    def write(name: str, body: str) -> str:
        path = tmp_path / name
        path.write_text(f"import os, signal, sys, time\n{body}\n")
        return str(path)

    return write


def run(*elements: str) -> int:
    """A chain of elements that are written as one line each."""
    words = [word for element in elements for word in ("--", *element.split())]
    return guarded(chain.main, words)


def test_commands_run_in_order_until_one_fails(script, capfd):
    say = script("say.py", "print(*sys.argv[1:], flush=True)")
    fail = script("fail.py", "sys.exit(int(sys.argv[1]))")
    assert run(f"{say} one", f"{say} two") == 0
    assert capfd.readouterr().out.splitlines() == [
        f"stage 1 of 2: {say[:-3]} one",
        "one",
        f"stage 2 of 2: {say[:-3]} two",
        "two",
    ]
    for status in (1, 2, 75):
        assert run(f"{say} one", f"{fail} {status}", f"{say} two") == status
        assert "two" not in capfd.readouterr().out


def test_the_remaining_time_is_that_of_the_mean_command(monkeypatch):
    made = Chain(parse(["--", "a.py", "--", "b.py", "--", "c.py", "--", "d.py", "--", "e.py"]))
    monkeypatch.setattr(chain.time, "monotonic", lambda: made.start + 180)
    made.skipped, made.ran = 1, 1
    assert made._left() == ""  # one command says little
    made.ran = 2
    assert made._left() == ", about 3 min left"  # two commands of 90 s each are left


def test_lines_of_commands():
    [[lane]] = parse(["--gpus", "3", "--", "train_base.py", "a.yaml", "--", "--alone", "eval.py", "a.yaml"])
    launched, alone = lane.steps
    assert launched.line[1:] == ["-m", "utils.launch", "--standalone", "--nproc_per_node=3", "train_base.py", "a.yaml"]
    assert alone.line[1:] == ["eval.py", "a.yaml"] and alone.number == 2


def test_names_leave_out_what_all_commands_share():
    words = ["--", "train_base.py", "a.yaml", "seed=1", "--", "eval.py", "a.yaml", "seed=1", "method=base"]
    found = Chain(parse([*words, "--", "collect.py", "output"]))
    assert [found._name(step) for step in found.steps] == ["train_base", "eval method=base", "collect output"]


@pytest.mark.parametrize("words", [[], ["--gpus", "2"], ["--gpus", "x", "--", "a.py"], ["--", "a"], ["--", "--alone"]])
def test_other_lists_are_refused(words):
    with pytest.raises(UserError, match="see the start of utils/chain.py"):
        parse(words)


def test_background_runs_at_the_same_time(script, tmp_path, capfd):
    wait = script("wait.py", "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('met')")
    make = script("make.py", "open(sys.argv[1], 'w')")
    met, log = tmp_path / "met", tmp_path / "log"
    assert run(f"--background {log}", f"{wait} {met}", "--foreground", f"{make} {met}", "--wait", f"{make} {met}2") == 0
    assert log.read_text().splitlines()[-1] == "met" and "stage 1 of 3" in log.read_text()
    assert "met\n" not in capfd.readouterr().out.replace(f"{met}\n", "") and Path(f"{met}2").exists()


def test_a_failure_in_the_background_is_shown(script, capfd):
    fail = script("fail.py", "print('error: no such thing', file=sys.stderr)\nsys.exit(2)")
    say = script("say.py", "print('said')")
    assert run("--background", fail, "--foreground", say, "--wait", say) == 2
    out, error = capfd.readouterr()
    assert out.count("said") == 1 and error == f"{fail[:-3]}: error: no such thing\n"


def test_a_failure_in_the_foreground_stops_the_background(script, tmp_path):
    started = tmp_path / "started"
    slow = script("slow.py", f"open({str(started)!r}, 'w')\ntime.sleep(60)")
    fail = script("fail.py", f"while not os.path.exists({str(started)!r}): time.sleep(0.01)\nsys.exit(2)")
    begun = time.monotonic()
    assert run("--background", slow, "--foreground", fail) == 2
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_are_passed_on(script, tmp_path, number):
    """The command saves and ends with 75; the next one does not begin."""
    body = f"signal.signal({int(number)}, lambda *_: sys.exit(75))\nopen(sys.argv[1], 'w')\ntime.sleep(60)"
    saves, say = script("saves.py", body), script("say.py", "print('next')")
    words = [sys.executable, "-m", "utils.chain", "--", saves, str(tmp_path / "ready"), "--", say]
    usual = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}  # nohup ignores SIGHUP, in the tests, too
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, **usual)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 75 and "next" not in out


def test_a_killed_command_has_a_status_of_its_own(script):
    assert run(script("killed.py", "os.kill(os.getpid(), signal.SIGKILL)")) == 128 + signal.SIGKILL


def test_ctrl_c_once_stops_the_chain_after_the_command(script, capfd):
    """The terminal sends it to the command as well, which this one ignores."""
    once = script("once.py", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nos.kill(os.getppid(), signal.SIGINT)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(once, once) == 75
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().out.count("stage ") == 1


def test_finished_stages_are_skipped_without_torch(tiny, monkeypatch, capfd):
    small = (str(tiny), *SMALL, "base_training.epochs=1")
    monkeypatch.setattr(sys, "argv", ["train_base.py"])
    assert guarded(train_base.main, list(small)) == 0
    slow = "import sys; from utils.chain import main; print(main(sys.argv[1:]), {'torch', 'cv2'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", slow, "--", "train_base.py", *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    skipped, ended = done.stdout.splitlines()
    assert skipped.startswith("stage 1 of 1: base: already finished, skipped (resume=false does it again): ")
    assert "; mIoU: base " in skipped and ended == "0 set()"
    step = chain.Step(("train_base.py", *small), 1, 1)
    assert step.finished()
    for other in ("resume=false", "seed=9", "expected={miou: 1.0}", "sed=9"):
        assert not chain.Step((*step.words, other), 1, 1).finished(), other
    assert not chain.Step(("eval.py", *small, "method=base"), 1, 1).finished()
    assert not chain.Step(("collect.py", "output", "--style", "latex"), 1, 1).finished()
