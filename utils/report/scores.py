"""The lines that a command prints about its finished stages. Nothing here imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.checkpoint import read_json
from utils.config.common import Common
from utils.measure.expected import expectation_status
from utils.ranks import is_main
from utils.report.published import PROBE_IOU
from utils.report.tables import print_comparison, print_metrics, print_repeats, print_steps
from utils.run_folder import METRICS

if TYPE_CHECKING:
    from utils.config.incremental import IncrementalConfig
    from utils.config.probe import ProbeConfig


def show_scores(cfg: Common, folder: Path) -> int:
    """Print the tables of eval.py; exit status 1 if a figure of `expected:` was not reached, else 0."""
    metrics = read_json(folder / METRICS)
    if is_main():
        print_metrics(metrics, f"{folder.name.removeprefix('eval_')}, {metrics['protocol']}")
        print_comparison(metrics["compared"])
    return expectation_status(cfg.expected, metrics)


def show_steps(cfg: "IncrementalConfig", *folders: Path) -> None:
    """Print the tables of train_incremental.py; `folders` are all steps in order."""
    title = f"{cfg.own_method or cfg.method}, {Path(cfg.task).stem}, {cfg.setting}"
    print_steps([read_json(folder / METRICS) for folder in folders], title)


def show_probe(cfg: "ProbeConfig", *folders: Path) -> int:
    """Print the tables of probe_features.py from the last of its stages; exit status as `show_scores`."""
    return print_probe(cfg, read_json(folders[-1] / METRICS))


def print_probe(cfg: "ProbeConfig", metrics: Mapping[str, Any]) -> int:
    """Print the tables of one mode of probe_features.py; exit status as `show_scores`."""
    if is_main():
        paper = PROBE_IOU.get((cfg.mode, metrics["protocol"])) if cfg.is_published else None
        print_metrics(metrics, f"{cfg.folder}, {cfg.mode}, {metrics['protocol']}", paper)
        print_repeats(metrics)
    return expectation_status(cfg.expected, metrics)
