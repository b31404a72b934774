"""Whether a stage is finished, and whether a command made it; stages of several commands and of one command."""

import json
import sys
from pathlib import Path

import pytest

from utils import run_folder
from utils.config.reader import load_config
from utils.inputs import DataFiles
from utils.run import start_run
from utils.run_folder import COMMANDS, Made, state_of, trained_files

SCRIPT = "train_base.py"


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
    return run_folder.finished_command(load(tiny, *overrides), script)


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
    (finished / COMMANDS).unlink() if text is None else (finished / COMMANDS).write_text(text)
    assert not found(tiny)
    run_stage(tiny, tmp_path)  # skipped, but noted again
    assert found(tiny) == [finished]


def test_an_unfinished_stage_is_not_found(finished, tiny, tmp_path):
    (finished / "metrics.json").unlink()
    assert not found(tiny)
    with start_run(load(tiny), "toy", ("base_training",), {"start": tmp_path / "start"}):
        pass  # it starts anew, and does not finish
    assert not (finished / COMMANDS).exists()


def test_every_command_that_came_by_is_known(finished, tiny, tmp_path):
    run_stage(tiny, tmp_path, "method=basic")  # which the stage does not read
    assert found(tiny) == found(tiny, "method=basic") == [finished]
    assert len(json.loads((finished / COMMANDS).read_text())) == 2


# ---- the state of a folder


def test_states(tiny, tmp_path):
    (tmp_path / "start").write_text("one")
    folder, made = tmp_path / "out" / "two" / "toy", Made(("base_training",), {"start": tmp_path / "start"})
    cfg = load(tiny)
    assert state_of(cfg, folder, made) == ("new", "")
    with start_run(cfg, "toy", made.reads, dict(made.inputs)) as run:
        assert state_of(cfg, folder, made).name == "new"
        run.last.write_text("saved")
        assert state_of(cfg, folder, made).name == "resumable"
        run.finish({"miou": 0.5})
    assert state_of(cfg, folder, made).name == "finished"
    other = state_of(load(tiny, "base_training.lr=0.3"), folder, made)
    assert other == ("differs", "settings (base_training.lr: 0.05 there, 0.3 now)")
    (tmp_path / "start").write_text("two")
    fresh = Made(made.reads, made.inputs)
    assert state_of(cfg, folder, fresh) == ("differs", "settings (its input 'start' has changed since)")


def test_changed_data_is_noticed(tiny, tmp_path):
    files, image = DataFiles(), tmp_path / "image.jpg"
    image.write_text("one")
    files.add([image])
    with start_run(load(tiny), "toy", ("base_training",), {}, files=files) as run:
        run.finish({})
    image.write_text("other")
    folder = tmp_path / "out" / "two" / "toy"
    state = state_of(load(tiny), folder, Made(("base_training",), {}))
    assert state == ("differs", f"data ({image} has changed)")


# ---- commands of several stages


def make(tiny, place: tuple[int, int]) -> Path:
    with start_run(load(tiny), f"method/step{place[0]}", ("base_training",), {}, place=place) as run:
        if not run.finished:
            run.finish({"miou": 0.5})
    return run.dir


def test_all_stages_of_a_command_must_be_finished(tiny, monkeypatch):
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    folders = [make(tiny, (2, 3)), make(tiny, (1, 3))]
    assert not found(tiny)
    folders.append(make(tiny, (3, 3)))
    assert found(tiny) == [folders[1], folders[0], folders[2]]
    (folders[0] / "metrics.json").unlink()
    assert not found(tiny)


def test_two_stages_in_one_place_leave_it_to_the_run(tiny, monkeypatch):
    """An evaluation of the last of several steps, before and after there was another one."""
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    for step in ("eval_step1", "eval_step2"):
        with start_run(load(tiny), step, ("base_training",), {}) as run:
            run.finish({})
    assert not found(tiny)


def test_an_evaluation_is_outdated_once_there_is_a_next_step(tmp_path):
    cfg = load_config(["configs/demo/incremental.yaml", f"output_dir={tmp_path}", "method=ssul"], "")
    folder = tmp_path / cfg.folder / "ssul"
    for step in (0, 2, 10):
        (folder / f"step{step}").mkdir(parents=True)
        for file in ("best.pth", "last.pth", "metrics.json"):
            (folder / f"step{step}" / file).write_text("{}")
    files = DataFiles()
    stage, paths = trained_files(cfg, files)
    assert stage == "step10" and {path.parent.name for path in paths.values()} == {"step10"}
    assert files.stamps == {str(folder / "step11" / "metrics.json"): None}
