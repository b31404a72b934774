"""Finished stages and training histories, read from run folders.

`save_stages` writes the figures of many runs to one small file, which `find_stages` reads like the folders.
"""

import glob
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.checkpoint import read_json, write_json
from utils.config.keys import flatten
from utils.config.reader import find_system
from utils.config.strict_yaml import read_mapping
from utils.errors import UserError
from utils.run_folder import CONFIG, METRICS
from utils.text import read_text

SUMMARY = "summary.json"  # of the steps in the folders below it
NOT_SAVED = ("per_class", "match", "config_sha256", "checkpoint")  # keys of metrics.json that save_stages leaves out
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Stage:
    """A finished stage, or the steps of a task that a summary.json sums up."""

    folder: Path
    system: str
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dataset(self) -> str:
        """Name of the data set; of a class list given as a folder, the name of the folder."""
        return Path(self.config.get("data", {}).get("dataset", "")).name

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def dry(self) -> bool:
        return bool(self.config.get("run", {}).get("dry"))

    def output_dir(self, split: str) -> Path:
        """The output_dir where it is now: the folder above that of the split, if the stage is in one."""
        run = next((parent for parent in self.folder.parents if split and parent.name == split), self.folder)
        return run.parent.parent if self.dry and run.parent.name == "dry" else run.parent


def find_stages(places: Iterable[Path]) -> list[Stage]:
    """Every finished stage in or below `places`, each once: folders, glob patterns, or files of `save_stages`.

    Dry runs are left out if there are other runs. Raises UserError for a folder that does not exist, a configuration of
    an unknown system, an empty metrics.json, or a file of another kind.
    """
    folders = dict.fromkeys(found.resolve() for place in places for found in _expanded(place))
    read = ((_saved_stages if place.is_file() else _stages_below)(place) for place in folders)
    stages = {stage.folder: stage for found in read for stage in found}
    return [s for s in stages.values() if not s.dry] or list(stages.values())


def save_stages(stages: Sequence[Stage], path: Path) -> None:
    """Write the figures of finished stages to one file: metrics.json without NOT_SAVED, and configurations.

    Keys that all configurations share are written once; data.root is left out. Folders are relative to the working
    directory. Raises UserError if `path` exists and is a file of another kind.
    """
    if path.exists():
        list(_saved_stages(path))
    configs = [{k: v for k, v in flatten(stage.config).items() if k != "data.root"} for stage in stages]
    shared = {key: value for key, value in configs[0].items() if all(key in c and c[key] == value for c in configs)}
    rows = [
        {
            "folder": os.path.relpath(stage.folder),
            "system": stage.system,
            "config": {key: value for key, value in config.items() if key not in shared},
            "metrics": {key: value for key, value in stage.metrics.items() if key not in NOT_SAVED},
        }
        for stage, config in zip(stages, configs, strict=True)
    ]
    write_json(path, {"config": shared, "stages": rows})


def finished_stages(folder: Path, first: str) -> dict[str, dict[str, Any]]:
    """Stage -> its metrics.json, for the folders directly below `folder`.

    Raises UserError if no stage is finished; the message names the command to run `first`.
    """
    paths = {path.parent.name: path for path in sorted(folder.glob(f"*/{METRICS}"))}
    if not paths:
        raise UserError(f"{folder}: no finished stage to report on; run first: {first}")
    return {stage: read_json(path) for stage, path in paths.items()}


def read_history(path: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """(losses over steps, validation scores over epochs) of history.jsonl: name -> [(x, y), ...].

    Undefined scores and incomplete lines are left out.
    """
    train: dict[str, Curve] = defaultdict(list)
    val: dict[str, Curve] = defaultdict(list)
    for line in read_text(path).splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            for curves, kind, over in ((train, "train", "step"), (val, "val", "epoch")):
                for name, value in entry.get(kind, {}).items():
                    if isinstance(value, (int, float)) and isinstance(entry[over], (int, float)):
                        curves[name].append((entry[over], value))
        except (ValueError, LookupError, AttributeError):
            continue
    return dict(train), dict(val)


def _expanded(place: Path) -> list[Path]:
    matches = (Path(path) for path in sorted(glob.glob(str(place))))
    found = [place] if place.exists() else [path for path in matches if path.is_dir() or path.suffix == ".json"]
    if not found:
        raise UserError(f"{place}: no such folder; give a stage, a folder of stages, an output_dir, or a glob of them")
    return found


def _saved_stages(path: Path) -> Iterator[Stage]:
    """Raises UserError if the file was not written by `save_stages`."""
    saved = read_json(path)
    try:
        for row in saved["stages"]:
            config = _nested(flatten(saved["config"]) | flatten(row["config"]))
            yield Stage(Path(row["folder"]), str(row["system"]), config, dict(row["metrics"]))
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        problem = "not a file of collected runs; collect.py FOLDERS --save FILE writes one"
        raise UserError(f"{path}: {problem}") from None


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _stages_below(folder: Path) -> Iterator[Stage]:
    for name, below, files in os.walk(folder):
        path = Path(name)
        below.sort()
        if METRICS in files:
            below.clear()  # no stage lies inside another, and predictions are thousands of files
        configs = [path / CONFIG] if METRICS in files else [*_newest(path), *_newest(path.parent, "*/")]
        config = next((file for file in configs if file.exists()), None)
        marker = next((marker for marker in (METRICS, SUMMARY) if marker in files), None)
        if marker and config:
            tree = read_mapping(config)
            metrics = read_json(path / marker)
            if not metrics:
                raise UserError(f"{path / marker}: empty; do the stage again with resume=false")
            yield Stage(path, find_system(tree, str(config)), tree, metrics)


def _newest(folder: Path, inside: str = "") -> list[Path]:
    """Configurations of the steps below a folder, the last first. A method may share its only step with another one."""
    return sorted(folder.glob(f"{inside}step*/{CONFIG}"), reverse=True)
