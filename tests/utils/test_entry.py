"""Answers before torch is imported, Ctrl-C in the meantime, and exit statuses."""

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import train_base
from data.prepare.demo import MARKER, DemoOptions, build_demo
from tests.utils.test_loop import SMALL
from tests.utils.test_run_folder import SCRIPT, run_stage
from utils import entry
from utils.checkpoint import read_json
from utils.log import log
from utils.run import guarded

ROOT = Path(__file__).parents[2]
# every command of a list in one process, as Python would run it: exit statuses, and what of the slow packages is there
COMMANDS = """
import json, runpy, sys
statuses = []
for script, *arguments in json.loads(sys.argv[1]):
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        statuses.append(end.code)
slow = {"torch", "torchvision", "sklearn", "scipy", "cv2", "PIL"}
print(json.dumps([statuses, sorted(slow & sys.modules.keys())]))
"""


def answered(*commands: tuple[str, ...]) -> tuple[list[str], list[int], set[str]]:
    """(what they print, their exit statuses, slow packages that they import)."""
    argv = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    *said, outcome = done.stdout.splitlines()
    statuses, slow = json.loads(outcome)
    return said, statuses, set(slow)


@pytest.fixture
def finished(tiny, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    (tmp_path / "start").write_text("one")
    return run_stage(tiny, tmp_path)


def test_a_finished_command_ends_here(finished, tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny)])
    with pytest.raises(SystemExit) as end:
        entry.answer("usage", SCRIPT, show=lambda cfg, *folders: 3 if folders == (finished,) else 4)
    assert end.value.code == 3
    assert capsys.readouterr().out == f"toy: already finished, skipped (resume=false does it again): {finished}\n"


@pytest.mark.parametrize("options", [{"WORLD_SIZE": "2"}, {"more": "resume=false"}])
def test_what_only_main_can_tell_is_left_to_it(finished, tiny, monkeypatch, capsys, options):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny), *([options["more"]] if "more" in options else [])])
    if "WORLD_SIZE" in options:
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert entry.answer("usage", SCRIPT).folder == Path("two")
    assert not capsys.readouterr().out


def test_a_mistake_is_one_line(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny), "base_training.epoch=3"])
    with pytest.raises(SystemExit) as end:
        entry.answer("usage", SCRIPT)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert "did you mean 'base_training.epochs'?" in error


def test_warnings_come_once(tiny, monkeypatch):
    """From here with --print-config, which ends here, else from main."""
    said, handler = [], logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    log.addHandler(handler)
    try:
        monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny), "base_training.epochs=1"])  # with a milestone after it
        entry.answer("usage", SCRIPT)
        assert not said
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--print-config"])
        with pytest.raises(SystemExit):
            entry.answer("usage", SCRIPT)
    finally:
        log.removeHandler(handler)
    assert len(said) == 1 and "base_training.milestones: epoch 2 never comes" in said[0]


def test_torch_is_not_imported(tiny, monkeypatch):
    """Of the scripts themselves: help, a mistake, the configuration, and stages that are finished."""
    small = (str(tiny), *SMALL, "base_training.epochs=1", "method=base")
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    assert guarded(train_base.main, list(small)) == 0
    commands = {
        (SCRIPT, *small): 0,
        (SCRIPT, "--help"): 0,
        (SCRIPT, *small, "--print-config"): 0,
        (SCRIPT, *small, "sed=1"): 2,
        **{(path.name, "none.yaml"): 2 for path in sorted(ROOT.glob("*.py")) if "answer(__doc__" in path.read_text()},
    }
    said, statuses, slow = answered(*commands)
    assert statuses == list(commands.values()) and not slow
    assert said[0].startswith("base: already finished") and len(commands) >= 12


def test_other_commands_answer_help_and_mistakes_without_torch_too(tmp_path):
    """And that the demo set is drawn already."""
    build_demo(tmp_path, DemoOptions(train=1, val=1, size=32), workers=1)
    drawn = {**read_json(tmp_path / MARKER), **asdict(DemoOptions())}
    (tmp_path / MARKER).write_text(json.dumps(drawn))
    scripts = ("predict.py", "export.py", "collect.py", "prepare_data.py")
    others = ("collect.py", "output", "--stile"), ("prepare_data.py", "demo", "--root", str(tmp_path))
    said, statuses, slow = answered(*((script, "--help") for script in scripts), *others)
    assert statuses == [0, 0, 0, 0, 2, 0] and not slow - {"cv2", "PIL"} and said[-1] == f"demo set: {tmp_path}"
    assert [line.split()[1] for line in said if line.startswith("usage: ")] == list(scripts)


def test_one_word_instead_of_a_traceback(capfd):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        entry.quiet_interrupt()
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_it_is_an_exception_again_once_main_runs():
    before, seen = signal.getsignal(signal.SIGINT), []
    try:
        for handler, between in ((signal.default_int_handler, entry._interrupted), (signal.SIG_IGN, signal.SIG_IGN)):
            signal.signal(signal.SIGINT, handler)
            entry.quiet_interrupt()
            assert signal.getsignal(signal.SIGINT) is between
            with pytest.raises(SystemExit):
                entry.entry(lambda argv: seen.append(signal.getsignal(signal.SIGINT)))
            assert seen.pop() is handler
    finally:
        signal.signal(signal.SIGINT, before)
