"""What runs left on disk, read back: finished stages and their configuration, the history of a training.

The figures of many runs fit in one small file (`save_stages`), which is read like the folders that it was made from.
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
from utils.config.reader import find_system
from utils.config.strict_yaml import read_mapping
from utils.errors import UserError
from utils.text import read_text

METRICS, CONFIG = "metrics.json", "config.yaml"
SUMMARY = "summary.json"  # what the stages below a folder, the steps of a task, come to
NOT_SAVED = ("per_class", "match", "config_sha256", "checkpoint")  # of metrics.json, in a file of many runs
MISSING = object()
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, configuration and metrics; or several in a row that a summary.json sums up."""

    folder: Path
    system: str
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dataset(self) -> str:
        """A class list given as a folder counts by its name."""
        return Path(self.config.get("data", {}).get("dataset", "")).name

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def dry(self) -> bool:
        return bool(self.config.get("run", {}).get("dry"))

    def output_dir(self, split: str) -> Path:
        """Where the configuration's output_dir lies now: above the folder of the split, if stages lie in one."""
        run = next((parent for parent in self.folder.parents if split and parent.name == split), self.folder)
        return run.parent.parent if self.dry and run.parent.name == "dry" else run.parent


def find_stages(places: Iterable[Path]) -> list[Stage]:
    """Every finished stage in or below some folders, each once, in their order; `places` may be glob patterns.

    A file is what `save_stages` wrote. Dry runs are left out where there are others. Raises UserError for a folder that
    does not exist, and for a configuration of no known system.
    """
    folders = dict.fromkeys(found.resolve() for place in places for found in _expanded(place))
    read = ((_saved_stages if place.is_file() else _stages_below)(place) for place in folders)
    stages = {stage.folder: stage for found in read for stage in found}
    return [s for s in stages.values() if not s.dry] or list(stages.values())


def save_stages(stages: Sequence[Stage], path: Path) -> None:
    """The numbers of finished stages as one file: scalars of metrics.json, and each configuration as far as it differs.

    Folders are kept relative to the working directory where they lie below it. UserError when the file is there and of
    another kind.
    """
    require_saved(path)
    shared = _in_common([stage.config for stage in stages])
    rows = [
        {
            "folder": os.path.relpath(stage.folder),
            "system": stage.system,
            "config": _without(stage.config, shared),
            "metrics": {key: value for key, value in stage.metrics.items() if key not in NOT_SAVED},
        }
        for stage in stages
    ]
    write_json(path, {"config": shared, "stages": rows})


def finished_stages(folder: Path, first: str) -> dict[str, dict[str, Any]]:
    """metrics.json of every finished stage right below a folder; UserError, naming what to run `first`, if none is."""
    paths = {path.parent.name: path for path in sorted(folder.glob(f"*/{METRICS}"))}
    if not paths:
        raise UserError(f"{folder}: no finished stage to report on; run first: {first}")
    return {stage: read_json(path) for stage, path in paths.items()}


def read_history(path: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """(losses over steps, validation scores over epochs) of history.jsonl, as lists of (x, y) by name.

    What is no number is left out: a score that was not defined, a line cut by a kill.
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
    """UserError for another file."""
    saved = read_json(path)
    try:
        for row in saved["stages"]:
            config, metrics = _merged(saved["config"], row["config"]), dict(row["metrics"])
            yield Stage(Path(row["folder"]), str(row["system"]), config, metrics)
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        problem = "is no file of collected runs; collect.py FOLDERS --save FILE writes one"
        raise UserError(f"{path}: {problem}") from None


def require_saved(path: Path) -> None:
    """UserError when there is a file that `save_stages` did not write."""
    if path.exists():
        list(_saved_stages(path))


def _in_common(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The part of nested dicts that all of them share."""
    first, *others = trees
    shared: dict[str, Any] = {}
    for key, value in first.items():
        rest = [tree.get(key, MISSING) for tree in others]
        if isinstance(value, dict) and all(isinstance(other, dict) for other in rest):
            shared[key] = _in_common([value, *rest])
        elif all(other == value for other in rest):
            shared[key] = value
    return shared


def _without(tree: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """What `shared` lacks of a tree; _merged(shared, _without(tree, shared)) == tree."""
    own = {}
    for key, value in tree.items():
        if key not in shared:
            own[key] = value
        elif isinstance(value, dict) and (below := _without(value, shared[key])):
            own[key] = below
    return own


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(shared)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _stages_below(folder: Path) -> Iterator[Stage]:
    for name, below, files in os.walk(folder):
        path = Path(name)
        below.sort()
        if METRICS in files:
            below.clear()  # a stage holds pictures by the thousand, and no other stage
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
    """Configurations of the steps below a folder; methods may have their only step in the folder of another one."""
    return sorted(folder.glob(f"{inside}step*/{CONFIG}"), reverse=True)
