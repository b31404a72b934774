"""Training killed at any file operation comes out as if it had not been; at full length: scripts/crash_test.sh."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.fingerprint import fingerprint
from tests.utils.test_loop import SMALL, ToyRecipe, toy_fit
from utils.errors import UserError

inject = pytest.importorskip("ckpt_chaos.inject", reason="ckpt-chaos is not installed (tests/requirements.txt)")
ROOT = Path(__file__).parents[1]
KILLED = 137
SHORT = ("base_training.epochs=2", "base_training.save_every=2")  # of 3 steps


@pytest.fixture(autouse=True)
def _warm(tiny, tmp_path):
    """One run here, so that the children have its imports (TensorBoard's take half a second) from the start."""
    toy_fit(tiny, ToyRecipe(), *SHORT, f"output_dir={tmp_path / 'warm'}")


def in_child(action) -> int:
    """Exit status of a forked process that runs `action`: much cheaper than a new Python."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except UserError:
            os._exit(2)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def train(tiny, output: Path, *overrides: str, at: int | None = None, mode="before", log: Path | None = None) -> int:
    """Train the toy model in a child that dies at file operation `at`, before it or with the file cut in half."""

    def action():
        if at or log:
            inject.arm(str(output), crash_at=at, mode=mode, log_path=log and str(log), torn_python=True)
        toy_fit(tiny, ToyRecipe(), *SHORT, f"output_dir={output}", *overrides)

    return in_child(action)


def operations(log: Path) -> list[tuple[int, bool]]:
    """(number, whether it writes a file) of every file operation of an undisturbed run."""
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    return [(int(number), tornable == "1") for number, _, _, tornable in rows]


def test_every_kill_point(tiny, tmp_path):
    assert train(tiny, tmp_path / "reference", log=tmp_path / "log") == 0
    expected = fingerprint(tmp_path / "reference" / "two" / "toy")
    listed = operations(tmp_path / "log")
    points = [(n, "before") for n, _ in listed] + [(n, "torn") for n, tornable in listed if tornable]
    assert len(listed) > 40 and len(points) > len(listed)
    for number, mode in points:
        output = tmp_path / f"{mode}{number}"
        assert train(tiny, output, at=number, mode=mode) == KILLED
        assert train(tiny, output) == 0, (number, mode)
        assert fingerprint(output / "two" / "toy") == expected, (number, mode)
        assert not list(output.rglob(".*.tmp"))


def test_every_kill_point_of_starting_over(tiny, tmp_path):
    """resume=false over a finished run of other settings: afterwards it is refused or done again, never skipped."""
    other = ("base_training.lr=0.3",)
    assert train(tiny, tmp_path / "reference") == 0
    expected = fingerprint(tmp_path / "reference" / "two" / "toy")
    assert train(tiny, tmp_path / "log_run", *other) == 0
    assert train(tiny, tmp_path / "log_run", "resume=false", log=tmp_path / "log") == 0
    ends = set()
    for number, _ in operations(tmp_path / "log")[:24]:  # the deletions and the first new files
        output = tmp_path / str(number)
        assert train(tiny, output, *other) == 0
        assert train(tiny, output, "resume=false", at=number) == KILLED
        ends.add(end := train(tiny, output))
        if end == 2:  # the old run is still there, whole or resumable
            assert train(tiny, output, "resume=false") == 0
        else:
            assert end == 0, number
        assert fingerprint(output / "two" / "toy") == expected, number
    assert ends == {0, 2}


def test_train_base_with_ckpt_chaos(tiny, tmp_path):
    """The tool itself on the script itself, at a few of the points."""
    chaos = Path(sys.executable).with_name("ckpt-chaos")
    options = ["--modes", "torn", "--max-points", "2", "--timeout", "300", "--work", str(tmp_path / "work")]
    result = f"{sys.executable} {ROOT / 'tests' / 'fingerprint.py'} {{out}}/two/base"
    command = [sys.executable, "train_base.py", str(tiny), "output_dir={out}", *SMALL, "base_training.epochs=1"]
    done = subprocess.run(
        [str(chaos), "run", *options, "--result-cmd", result, "--", *command],
        **{"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True},
    )
    assert done.returncode == 0 and done.stdout.count("  PASS") == 3, done.stdout + done.stderr  # and the control run
