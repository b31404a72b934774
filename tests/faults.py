"""Faults of real processes: kills, signals, a full disk, two runs in one folder.

    python -m tests.faults FOLDER [kills|signals|ranks|full_disk|two_runs ...]

prints a line for each, PASS or FAIL with the reason, and ends with status 1 when one failed. scripts/faults.sh runs
all, and ckpt-chaos besides.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from tests.conftest import make_voc, write_tiny
from tests.fingerprint import fingerprint, tensors
from utils.run import guarded

ROOT = Path(__file__).parents[1]
SMALL = ("model.backbone=efficientnet_lite0", "base_training.log_every=1", "base_training.save_every=1")
STAGES = (
    ("train_base", "base", ()),
    ("cluster_pseudolabel", "pseudo", ()),
    ("finetune_novel", "basic", ("method=basic",)),
    ("entropy_rank", "ranking", ()),
    ("finetune_novel", "eums", ("method=eums",)),
    ("eval", "eval_eums", ("method=eums",)),
)


class Workplace:
    """A tiny data set, its configuration, and commands on it."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = str(write_tiny(folder, make_voc(folder / "voc", train=16, val=8)))

    def train(self, output: str, *overrides: str) -> list[str]:
        return [sys.executable, "train_base.py", self.config, f"output_dir={self.folder / output}", *SMALL, *overrides]

    def chain(self, output: str) -> BaseProcess:
        """All stages in a process forked from this one, which has their imports: kills are not to hit these alone."""
        return get_context("fork").Process(target=run_chain, args=(self, output))

    def base(self, output: str) -> Path:
        return self.folder / output / "two" / "base"


def start(command: list[str], **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True, **options
    )


def finish(command: list[str], expected: int = 0, **options) -> str:
    """Run to the end; what it said on standard error."""
    process = start(command, **options)
    _, error = process.communicate(timeout=600)
    assert process.returncode == expected, f"status {process.returncode} instead of {expected}: {error[-500:]}"
    assert "Traceback" not in error, error[-500:]
    return error


def figures(folder: Path) -> dict[str, str]:
    """What a chain left: metrics of every stage, tensors of every network."""
    found = {}
    for _, stage, _ in STAGES:
        metrics = json.loads((folder / stage / "metrics.json").read_text())
        del metrics["config_sha256"]  # of a file that names the output folder
        metrics.pop("checkpoint", None)
        found[stage] = json.dumps(metrics, sort_keys=True)
        found |= {f"{stage}/{path.name}": tensors(path) for path in (folder / stage).glob("*st.pth")}
    return found


def run_chain(place: Workplace, output: str) -> None:
    with (place.folder / f"{output}.log").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    for script, _, more in STAGES:
        status = guarded(
            import_module(script).main, [place.config, f"output_dir={place.folder / output}", *SMALL, *more]
        )
        if status:
            raise SystemExit(status)


def kills(place: Workplace, count: int = 50, seed: int = 0) -> str:
    """The chain of discovery, killed at random moments and run again, until it is through."""
    torch.set_num_threads(1)
    for script in (*(script for script, _, _ in STAGES), "torch.utils.tensorboard"):
        import_module(script)
    begun, reference = time.monotonic(), place.chain("reference")
    reference.start()
    reference.join()
    whole, expected = time.monotonic() - begun, figures(place.folder / "reference" / "two")
    rng, done, chains = random.Random(seed), 0, 0
    while done < count:
        chains += 1
        output, killed = f"killed{chains}", True
        while killed:
            process = place.chain(output)
            process.start()
            process.join(rng.uniform(0.05, 0.5) * whole if done < count else 600)
            killed = process.exitcode is None
            process.kill()
            process.join()
            done += killed
        assert process.exitcode == 0, f"status {process.exitcode}: {place.folder / output}.log"
        assert figures(place.folder / output / "two") == expected, f"other figures in {output}"
    return f"{done} kills in {chains} chains, equal figures and tensors"


def signals(place: Workplace, count: int = 9, seed: int = 1) -> str:
    """Signals at random moments of a training that saves at every step."""
    rng, stopped = random.Random(seed), 0
    finish(place.train("undisturbed"))
    expected = fingerprint(place.base("undisturbed"))
    for number in range(count):
        output = f"signalled{number}"
        kind = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)[number % 3]
        process = start(place.train(output))
        wait_for(place.base(output) / "last.pth", process)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(kind)
        _, error = process.communicate(timeout=300)
        assert process.returncode in (0, 75) and "Traceback" not in error, (kind, process.returncode, error[-500:])
        stopped += process.returncode == 75
        finish(place.train(output))
        assert fingerprint(place.base(output)) == expected, f"another result after {kind.name}"
    assert stopped, "no signal came before the end"
    return f"{stopped} of {count} runs stopped by a signal, all with equal results"


def ranks(place: Workplace) -> str:
    """Two processes stopped by SIGTERM to the launcher, then continued by one process."""
    command = place.train("ranks", "base_training.epochs=40")
    launch = [sys.executable, "-m", "utils.launch", "--standalone", "--nproc_per_node=2", *command[1:]]
    process = start(launch)
    wait_for(place.base("ranks") / "last.pth", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 75, (process.returncode, error[-500:])
    finish(command)
    steps = [json.loads(line)["step"] for line in (place.base("ranks") / "history.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 80, steps[-3:]
    return "status 75 of two processes, finished by one"


def full_disk(place: Workplace) -> str:
    """A disk that fills up during training ends it with one line; the training resumes once there is space."""
    finish(place.train("roomy"))
    with small_disk(place.folder / "disk") as room:
        process = start(place.train("disk/full"))
        wait_for(place.base("disk/full") / "last.pth", process)
        fill(room, process)
        _, error = process.communicate(timeout=300)
        said = [line for line in error.splitlines() if line.startswith("error: ")]
        assert process.returncode == 2 and "Traceback" not in error, (process.returncode, error[-500:])
        assert len(said) == 1 and ("No space left" in said[0] or "File too large" in said[0]), error[-500:]
        (room / FILLER).unlink(missing_ok=True)
        finish(place.train("disk/full"))
        assert fingerprint(place.base("disk/full")) == fingerprint(place.base("roomy"))
    return f"'{said[0].split('/')[-1]}' on a {'tmpfs' if room != place.folder else 'limit of file sizes'}, then equal"


FILLER = "filler"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of 200 MB, where this process may mount one (root, or below `unshare --map-root-user --mount`)."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        yield folder.parent
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(room: Path, process: subprocess.Popen) -> None:
    """Leave no byte on the small disk; without one, let no file of the process grow beyond 60 kB."""
    if not os.path.ismount(room):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (60_000, 60_000))
        return
    with contextlib.suppress(OSError), (room / FILLER).open("wb", buffering=0) as filler:
        while filler.write(bytes(1 << 20)):
            pass


def two_runs(place: Workplace) -> str:
    """A second run in the folder of a running one."""
    command = place.train("shared", "base_training.epochs=500")
    process = start(command)
    try:
        wait_for(place.base("shared") / "last.pth", process)
        error = finish(command, expected=2)
        assert f"in use by another run (process {process.pid} on " in error, error
    finally:
        process.kill()
        process.communicate()
    return "refused, process and machine named"


def wait_for(path: Path, process: subprocess.Popen, most: float = 300) -> None:
    """Wait until a file is there; AssertionError when the process ends before."""
    deadline = time.monotonic() + most
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


FAULTS: dict[str, Callable[[Workplace], str]] = {
    "kills": kills,
    "signals": signals,
    "ranks": ranks,
    "full_disk": full_disk,
    "two_runs": two_runs,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FAULTS)}; default: all")
    options = parser.parse_args(argv)
    failed = 0
    for name in options.names or FAULTS:
        begun = time.monotonic()
        try:
            outcome = f"PASS  {FAULTS[name](Workplace(options.folder / name))}"
        except AssertionError as error:
            failed += 1
            outcome = f"FAIL  {error}"
        print(f"{name:10} {time.monotonic() - begun:5.0f} s  {outcome}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
