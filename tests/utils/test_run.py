"""The run folder: who may use it, when a stage is skipped, resumed, refused or done again, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train_base
from utils.config.reader import load_config
from utils.errors import UserError
from utils.run import Run, guarded, start_run
from utils.run_folder import stage_dir

ROOT = Path(__file__).parents[2]
HOLD = (
    "import sys; from pathlib import Path; from utils.run_folder import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); input()"
)


def start(tiny, *overrides, inputs=None, reads=("base_training",)):
    return start_run(load_config([str(tiny), *overrides], ""), "toy", reads, inputs or {})


def finish(tiny, *overrides, **options) -> Run:
    with start(tiny, *overrides, **options) as run:
        if not run.finished:
            run.finish({"miou": 1.0})
    return run


def interrupt(tiny, *overrides, **options) -> Run:
    """A run that saved and stopped. Its checkpoint is not read by these tests."""
    with start(tiny, *overrides, **options) as run:
        run.last.write_text("saved")
    return run


def refusal(tiny, *overrides, **options) -> str:
    with pytest.raises(UserError) as caught, start(tiny, *overrides, **options):
        pytest.fail("the run started")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "out" / "two" / "toy"


def test_a_folder_serves_one_run_at_a_time(tiny, folder, capsys):
    base = folder.with_name("base")
    base.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, base], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert guarded(train_base.main, [str(tiny)]) == 2
        error = capsys.readouterr().err
        where = f"process {holder.pid} on {socket.gethostname()}"
        assert error == f"error: {base} is in use by another run ({where}); wait for it or choose another output_dir\n"
        assert [path.name for path in base.iterdir()] == ["run.lock"]
    finally:
        holder.kill()  # however the other run ends
        holder.communicate()
    with start_run(load_config([str(tiny)], ""), "base", ("base_training",), {}) as run:
        assert not run.finished


def test_a_killed_runs_workers_do_not_hold_its_folder(tiny, folder):
    """The lock belongs to a process, not to the file handles that its children inherit."""
    with start(tiny):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
    try:
        probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        subprocess.run([sys.executable, "-c", probe, folder / "run.lock"], check=True)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_output_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(tiny, f"output_dir={tmp_path / 'file'}")


def test_files_of_others_are_not_deleted(tiny, folder):
    """An output_dir may be chosen so that a stage's folder is one with pictures in it."""
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "photo.jpg").write_text("mine")
    for options in ((), ("resume=false",)):
        assert f"{folder}: holds files that no run wrote (deeper), a run would delete them" in refusal(tiny, *options)
    assert (folder / "deeper" / "photo.jpg").read_text() == "mine" and not (folder / "run.lock").exists()


def test_a_finished_stage_is_skipped(tiny, folder, capsys):
    assert not finish(tiny).finished
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "run.lock"}
    for resume in ("auto", "true"):
        assert finish(tiny, f"resume={resume}").finished
        assert capsys.readouterr().out.splitlines()[-1].startswith("toy: already finished, skipped")
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "run.lock"}


@pytest.mark.parametrize("make", [finish, interrupt])
@pytest.mark.parametrize(
    "override, shown",
    [
        ("base_training.lr=0.2", "base_training.lr: 0.05 there, 0.2 now"),
        ("base_training.batch_size=8", "base_training.batch_size: 4 there, 8 now"),
        ("seed=8", "seed: 7 there, 8 now"),
        ("model.dropout=0", "model.dropout: 0.5 there, 0.0 now"),
        ("data.image_size=48", "data.image_size: 32 there, 48 now"),
    ],
)
def test_other_settings_are_refused(tiny, folder, make, override, shown):
    make(tiny)
    config = (folder / "config.yaml").read_text()
    message = refusal(tiny, override)
    assert shown in message and str(folder) in message and "resume=false" in message
    assert (folder / "config.yaml").read_text() == config
    assert not finish(tiny, override, "resume=false").finished
    assert finish(tiny, override).finished


@pytest.mark.parametrize(
    "override",
    ["data.workers=1", "data.cache=true", "basic.lr=9", "evaluation.batch_size=1", "base_training.save_every=1"],
)
def test_settings_that_do_not_matter_here(tiny, override):
    finish(tiny)
    assert finish(tiny, override).finished


def test_a_key_that_came_later_counts_with_its_default(tiny):
    path = finish(tiny).dir / "config.yaml"
    lines = [line for line in path.read_text().splitlines() if "accumulate" not in line]
    assert len(lines) < len(path.read_text().splitlines())
    path.write_text("\n".join(lines))
    assert finish(tiny).finished
    assert "base_training.accumulate: 1 there, 2 now" in refusal(tiny, "base_training.accumulate=2")


def test_a_single_key_can_matter(tiny):
    finish(tiny, reads=("basic", "cluster.k"))
    assert finish(tiny, "cluster.n_init=9", reads=("basic", "cluster.k")).finished
    assert "cluster.k: 3 there, 5 now" in refusal(tiny, "cluster.k=5", reads=("basic", "cluster.k"))


def test_changed_input_is_refused(tiny, tmp_path):
    given = tmp_path / "input.txt"
    given.write_text("a")
    finish(tiny, inputs={"list": given})
    assert finish(tiny, inputs={"list": given}).finished
    assert "its input 'list' has changed" in refusal(tiny)  # no longer an input
    given.write_text("b")
    assert "its input 'list' has changed" in refusal(tiny, inputs={"list": given})
    finish(tiny, "resume=false")
    assert "its input 'list' has changed" in refusal(tiny, inputs={"list": given})  # newly an input


@pytest.mark.parametrize("resume", ["auto", "true"])
def test_an_interrupted_stage_goes_on(tiny, folder, resume):
    interrupt(tiny)
    with start(tiny, f"resume={resume}") as run:
        assert not run.finished and run.resume_from == folder / "last.pth"
        assert run.last.read_text() == "saved"


def test_resume_false_starts_over(tiny, folder):
    interrupt(tiny)
    (folder / "predictions").mkdir()
    (folder / "predictions" / "a.png").write_text("")
    with start(tiny, "resume=false") as run:
        assert run.resume_from is None and not run.last.exists() and not (folder / "predictions").exists()


def test_a_half_written_stage_is_done_again(tiny, folder):
    """Nothing saved yet, as in the stages that do not train: what lies there may be incomplete."""
    with start(tiny):
        (folder / "novel.txt").write_text("half")
    with start(tiny, "seed=9") as run:  # so other settings do not matter either
        assert run.resume_from is None and not (folder / "novel.txt").exists()


def test_resume_true_needs_something_to_resume(tiny, folder):
    message = refusal(tiny, "resume=true")
    assert f"resume=true, but {folder} holds nothing to resume" in message and "resume=auto" in message


def test_resume_from_a_path(tiny, folder, tmp_path):
    finish(tiny)
    other = tmp_path / "other.pth"
    assert f"resume={other}: no such file" in refusal(tiny, f"resume={other}")
    assert (folder / "metrics.json").exists()
    other.write_text("weights")
    with start(tiny, f"resume={other}") as run:
        assert run.resume_from == other and not run.finished and not (folder / "metrics.json").exists()


def test_resume_from_a_path_that_starting_over_would_delete(tiny, folder):
    interrupt(tiny)
    assert "use resume=true, or move it" in refusal(tiny, f"resume={folder / 'last.pth'}")
    assert (folder / "last.pth").read_text() == "saved"


@pytest.mark.parametrize("prepared", [finish, interrupt])
def test_a_kill_while_starting_over_leaves_no_finished_stage(tiny, folder, monkeypatch, prepared):
    """After any number of deletions the folder is resumable or new, never finished."""
    prepared(tiny)
    (folder / "best.pth").write_text("")
    count = len(list(folder.iterdir()))
    for survived in range(1, count):
        with monkeypatch.context() as patch:
            kill_after(patch, survived)
            with pytest.raises(KeyboardInterrupt), start(tiny, "resume=false"):
                pass
        with start(tiny) as run:
            assert not run.finished
        prepared(tiny, "resume=false")
        (folder / "best.pth").write_text("")


def kill_after(patch, deletions: int) -> None:
    unlink, done = Path.unlink, []

    def killed(path, missing_ok=False):
        if len(done) == deletions:
            raise KeyboardInterrupt
        done.append(path)
        unlink(path, missing_ok)

    patch.setattr(Path, "unlink", killed)


def test_leftovers_of_a_kill_are_removed(tiny, folder):
    interrupt(tiny)
    (folder / ".last.pth.tmp").write_text("half")
    (folder / "sub").mkdir()
    (folder / "sub" / ".a.png.tmp").write_text("half")
    with start(tiny):
        assert not list(folder.rglob(".*.tmp")) and (folder / "last.pth").exists()


def test_metrics_are_the_last_file_and_name_the_configuration(tiny, folder):
    finish(tiny)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == {"miou": 1.0, "config_sha256": metrics["config_sha256"]}
    again = load_config([str(folder / "config.yaml")], "")
    assert again == load_config([str(tiny)], "")
    log = (folder / "log.txt").read_text()
    assert "command:" in log and "versions: python 3." in log and "device: cpu" in log


def test_dry_runs_and_split_files_have_folders_of_their_own(tiny, tmp_path):
    out = tmp_path / "out"
    assert stage_dir(load_config([str(tiny), "run.dry=true"], ""), "base") == out / "dry" / "two" / "base"
    assert stage_dir(load_config([str(tiny), "split=/somewhere/mine.yaml"], ""), "base") == out / "mine" / "base"
