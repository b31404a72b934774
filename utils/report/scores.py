"""What eval.py says of an evaluated stage."""

from pathlib import Path

from utils.checkpoint import read_json
from utils.config.common import Common
from utils.measure.expected import expectation_status
from utils.ranks import is_main
from utils.report.tables import print_comparison, print_metrics


def show_scores(cfg: Common, folder: Path) -> int:
    """Print the tables of the stage in `folder`; exit status, by what the configuration expects."""
    metrics = read_json(folder / "metrics.json")
    if is_main():
        print_metrics(metrics, f"{folder.name.removeprefix('eval_')}, {metrics['protocol']}")
        print_comparison(metrics["compared"])
    return expectation_status(cfg.expected, metrics)
