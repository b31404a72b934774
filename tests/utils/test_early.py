"""Commands that are answered before torch is imported."""

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import train_base
from data.prepare.demo import MARKER, DemoOptions, build_demo
from tests.utils.test_loop import SMALL
from utils import early
from utils.checkpoint import read_json
from utils.config.reader import load_config
from utils.log import log
from utils.run import guarded, start_run

ROOT = Path(__file__).parents[2]
SCRIPT = "train_base.py"
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


def load(tiny, *overrides):
    return load_config([str(tiny), *overrides], "")


def run_stage(tiny, tmp_path, *overrides) -> Path:
    """A stage that is made from one file, finished by the script."""
    with start_run(load(tiny, *overrides), "toy", ("base_training",), {"start": tmp_path / "start"}) as run:
        if not run.finished:
            run.finish({"miou": 0.5})
    return run.dir


@pytest.fixture
def finished(tiny, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", [f"/somewhere/{SCRIPT}"])
    (tmp_path / "start").write_text("one")
    return run_stage(tiny, tmp_path)


def found(tiny, *overrides, script=SCRIPT) -> list[Path]:
    return early.finished_stages(load(tiny, *overrides), script)


def test_the_same_command_finds_its_stage(finished, tiny):
    assert found(tiny) == [finished]
    assert found(tiny, "data.workers=3", "resume=true") == [finished]  # change no result


def test_any_other_command_does_not(finished, tiny):
    assert not found(tiny, script="finetune_novel.py")
    for other in ("seed=8", "base_training.lr=0.06", "method=basic", "own={a: 1}", "device=cuda"):
        assert not found(tiny, other), other


def test_a_changed_input_is_noticed(finished, tiny, tmp_path):
    (tmp_path / "start").write_text("two")
    assert not found(tiny)
    (tmp_path / "start").unlink()
    assert not found(tiny)
    (tmp_path / "start").write_text("one")
    assert found(tiny)


@pytest.mark.parametrize("text", ["", "[]", '{"x"', None])
def test_a_damaged_record_or_none_leaves_it_to_the_run(finished, tiny, tmp_path, text):
    (finished / early.RECORD).unlink() if text is None else (finished / early.RECORD).write_text(text)
    assert not found(tiny)
    run_stage(tiny, tmp_path)  # skipped, but noted again
    assert found(tiny) == [finished]


def test_an_unfinished_stage_is_not_found(finished, tiny, tmp_path):
    (finished / "metrics.json").unlink()
    assert not found(tiny)
    with start_run(load(tiny), "toy", ("base_training",), {"start": tmp_path / "start"}):
        pass  # it starts anew, and does not finish
    assert not (finished / early.RECORD).exists()


def test_every_command_that_came_by_is_known(finished, tiny, tmp_path):
    run_stage(tiny, tmp_path, "method=basic")  # which the stage does not read
    assert found(tiny) == found(tiny, "method=basic") == [finished]
    assert len(json.loads((finished / early.RECORD).read_text())) == 2


# ---- answers


def test_a_finished_command_ends_here(finished, tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny)])
    with pytest.raises(SystemExit) as end:
        early.answer("usage", SCRIPT, show=lambda cfg, folder: 3 if folder == finished else 4)
    assert end.value.code == 3
    assert capsys.readouterr().out == f"toy: already finished, skipped (resume=false does it again): {finished}\n"


@pytest.mark.parametrize("options", [{"stages": 0}, {"stages": 2}, {"WORLD_SIZE": "2"}, {"more": "resume=false"}])
def test_what_only_main_can_tell_is_left_to_it(finished, tiny, monkeypatch, capsys, options):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny), *([options["more"]] if "more" in options else [])])
    if "WORLD_SIZE" in options:
        monkeypatch.setenv("WORLD_SIZE", "2")
    early.answer("usage", SCRIPT, stages=options.get("stages", 1))
    assert not capsys.readouterr().out


def test_a_mistake_is_one_line(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(tiny), "base_training.epoch=3"])
    with pytest.raises(SystemExit) as end:
        early.answer("usage", SCRIPT)
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
        early.answer("usage", SCRIPT)
        assert not said
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--print-config"])
        with pytest.raises(SystemExit):
            early.answer("usage", SCRIPT)
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
