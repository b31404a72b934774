"""All runs on disk, finished or not, and the differences between two of them."""

import fcntl
import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.checkpoint import read_json
from utils.config.keys import flatten
from utils.config.reader import find_system
from utils.config.strict_yaml import read_mapping
from utils.errors import UserError
from utils.report.aggregate import ResultTable
from utils.report.results import Stage, read_history
from utils.report.tables import Rows, percent
from utils.run_folder import CONFIG, INPUTS, LAST, LOCK, METRICS, is_finished

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
NO_EFFECT = ("output_dir", "resume", "device", "run.threads", "data.workers")  # keys without effect on results


@dataclass(frozen=True)
class RunState:
    """A stage that was started, and its state:

    running   a process holds the folder
    finished  metrics.json is there
    stopped   the same command continues from last.pth
    failed    none of these: the same command starts over
    """

    folder: Path
    system: str
    config: dict[str, Any]
    state: str
    scores: dict[str, float]  # final values, or the best so far
    changed: float  # seconds since 1970


def find_runs(places: Sequence[Path]) -> list[RunState]:
    """Every started stage in or below some folders, the last changed first. Raises UserError for a missing folder."""
    missing = next((place for place in places if not place.is_dir()), None)
    if missing:
        raise UserError(f"{missing}: no such folder; give folders of runs")
    found: dict[Path, RunState] = {}
    for place in places:
        for name, below, files in os.walk(place):
            if {CONFIG, INPUTS} <= set(files):
                below.clear()
                found[Path(name).resolve()] = _state(Path(name))
    return sorted(found.values(), key=lambda run: -run.changed)


def _state(folder: Path) -> RunState:
    config = read_mapping(folder / CONFIG)
    _, history = read_history(folder / "history.jsonl")
    scores = {name: max(value for _, value in curve) for name, curve in history.items() if curve}
    if is_held(folder / LOCK):
        state = "running"
    elif is_finished(folder):
        state, metrics = "finished", read_json(folder / METRICS)
        scores |= {key: value for key, value in metrics.items() if isinstance(value, float)}
    else:
        state = "stopped" if (folder / LAST).is_file() else "failed"
    changed = max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
    return RunState(folder, find_system(config, str(folder / CONFIG)), config, state, scores, changed)


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock; does not take it."""
    if not lock.is_file():
        return False
    with lock.open("rb") as handle:  # F_GETLK works on folders that cannot be written
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock
        kind = struct.unpack("hhqqi", fcntl.fcntl(handle, fcntl.F_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def age(seconds: float) -> str:
    """A duration in its largest unit: "5 s", "2 min", "2 h", "2 d"."""
    for length, unit in UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def list_table(runs: Sequence[RunState], tables: Mapping[str, ResultTable]) -> Rows:
    """One line per run; `tables` of each system give its split and its main metric."""
    rows = [["run", "system", "split", "state", "best", "of", "age"]]
    now = time.time()
    for run in runs:
        main, split = tables[run.system].main, tables[run.system].split(run.config)
        score = run.scores.get(main.metric)
        of = main.heading if score is not None else "-"
        cells = [str(run.folder), run.system, split, run.state, percent(score), of]
        rows.append([*cells, age(now - run.changed)])
    return rows


# ---- two runs


def differences(one: Sequence[Stage], other: Sequence[Stage]) -> tuple[Rows, Rows]:
    """(keys that differ with both values, figures with both values and their difference) of the common stages.

    Stages are paired by the name of the stage and of its folder; if no folders match, by the name of the stage alone.
    Raises UserError if there is no common stage.
    """
    pairs = [(a, b) for a in one for b in other if (a.name, a.folder.parent.name) == (b.name, b.folder.parent.name)]
    if not pairs:
        pairs = [(a, b) for a in one for b in other if a.name == b.name]
    if not pairs:
        raise UserError("--diff: the two have no finished stage in common")
    keys: dict[str, tuple[Any, Any]] = {}
    figures = [["figure", "first", "second", "difference"]]
    for a, b in pairs:
        first, second = flatten(a.config), flatten(b.config)
        for key in sorted(first.keys() | second.keys()):
            if first.get(key) != second.get(key) and key not in NO_EFFECT:
                keys[key] = first.get(key), second.get(key)
        for key, value in a.metrics.items():
            theirs = b.metrics.get(key)
            if isinstance(value, float) and isinstance(theirs, float):
                figures.append([f"{a.name} {key}", percent(value), percent(theirs), f"{100 * (theirs - value):+.1f}"])
    return [["key", "first", "second"], *([key, str(a), str(b)] for key, (a, b) in keys.items())], figures
