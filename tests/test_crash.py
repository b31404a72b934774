"""Training killed at any file operation comes out as if it had not been; at full length: scripts/faults.sh."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import train_base
from tests.fingerprint import fingerprint
from tests.processes import in_child
from tests.utils.test_loop import SMALL, ToyRecipe, toy_fit

inject = pytest.importorskip("ckpt_chaos.inject", reason="ckpt-chaos is not installed (tests/requirements.txt)")
KILLED = 137
SHORT = ("base_training.epochs=2", "base_training.save_every=2")  # of 3 steps


@pytest.fixture(autouse=True)
def _warm(tiny, tmp_path):
    """One run here, so that the children have its imports (TensorBoard's take half a second) from the start."""
    toy_fit(tiny, ToyRecipe(), *SHORT, f"output_dir={tmp_path / 'warm'}")


class Operation(NamedTuple):
    """A file operation of an undisturbed run."""

    number: int
    what: tuple[str, ...]  # its name and its file
    tornable: bool  # it writes a file, which a kill can leave cut in half


def disturbed(action: Callable[[], object], output: Path, *, at: int | None = None, mode="before", log=None) -> int:
    """Exit status of a child that dies at file operation `at`, before it or with the file cut in half."""

    def armed():
        if at or log:
            inject.arm(str(output), crash_at=at, mode=mode, log_path=log and str(log), torn_python=True)
        return action()

    return in_child(armed)


def train(tiny, output: Path, *overrides: str, **how) -> int:
    """Train the toy model."""
    return disturbed(
        lambda: toy_fit(tiny, ToyRecipe(), *SHORT, f"output_dir={output}", *overrides) and None, output, **how
    )


def operations(log: Path) -> list[Operation]:
    """Without those that change nothing, as making a folder that exists: a kill at the next one leaves the same."""
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    listed = [Operation(int(number), tuple(what), tornable == "1") for number, *what, tornable in rows]
    return [o for o in listed if o.what[0] != "os.mkdir" and (o.what[0] != "os.remove" or ".tmp" not in o.what[1])]


def first_and_last(listed: list[Operation]) -> list[Operation]:
    """Of every kind: one that makes its file, and one that replaces it."""
    last, first = ({o.what: o.number for o in order} for order in (listed, reversed(listed)))
    return [o for o in listed if o.number in (first[o.what], last[o.what])]


def test_kill_points(tiny, tmp_path):
    assert train(tiny, tmp_path / "reference", log=tmp_path / "log") == 0
    expected = fingerprint(tmp_path / "reference" / "two" / "toy")
    listed = operations(tmp_path / "log")
    chosen = first_and_last(listed)
    points = [(o, "before") for o in chosen] + [(o, "torn") for o in chosen if o.tornable]
    assert len(chosen) > 15 and len(points) > 25
    for operation, mode in points:
        output = tmp_path / f"{mode}{operation.number}"
        assert train(tiny, output, at=operation.number, mode=mode) == KILLED
        assert train(tiny, output) == 0, (operation, mode)
        assert fingerprint(output / "two" / "toy") == expected, (operation, mode)
        assert not list(output.rglob(".*.tmp"))


def test_kill_points_of_starting_over(tiny, tmp_path):
    """resume=false over a finished run of other settings: afterwards it is refused or done again, never skipped."""
    assert train(tiny, tmp_path / "reference") == 0
    expected = fingerprint(tmp_path / "reference" / "two" / "toy")
    assert train(tiny, tmp_path / "other", "base_training.lr=0.3") == 0
    shutil.copytree(tmp_path / "other", tmp_path / "logged")
    assert train(tiny, tmp_path / "logged", "resume=false", log=tmp_path / "log") == 0
    listed = operations(tmp_path / "log")
    training = next(place for place, o in enumerate(listed) if "last.pth.tmp" in o.what[1])
    ends = set()
    for operation in listed[:training]:  # the deletions and the first new files
        output = tmp_path / str(operation.number)
        shutil.copytree(tmp_path / "other", output)
        assert train(tiny, output, "resume=false", at=operation.number) == KILLED
        ends.add(end := train(tiny, output))
        if end == 2:  # the old run is still there, whole or resumable
            assert train(tiny, output, "resume=false") == 0
        else:
            assert end == 0, operation
        assert fingerprint(output / "two" / "toy") == expected, operation
    assert ends == {0, 2}


def test_train_base_itself(tiny, tmp_path):
    """Checkpoints cut in half. scripts/faults.sh tests other points, in separate processes."""

    def run(output: Path, **how) -> int:
        options = [str(tiny), f"output_dir={output}", *SMALL, "base_training.epochs=1"]
        return disturbed(lambda: train_base.main(options), output, **how)

    assert run(tmp_path / "reference", log=tmp_path / "log") == 0
    expected = fingerprint(tmp_path / "reference" / "two" / "base")
    points = {o.what[1]: o.number for o in operations(tmp_path / "log") if o.tornable and ".pth" in o.what[1]}
    assert points.keys() == {".best.pth.tmp", ".last.pth.tmp"}
    for number in points.values():
        output = tmp_path / str(number)
        assert run(output, at=number, mode="torn") == KILLED
        assert run(output) == 0
        assert fingerprint(output / "two" / "base") == expected
