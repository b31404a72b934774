"""Figures of docs/results.md are those of the files that they come from; those of the README are among them."""

import re
import shlex
import statistics
from pathlib import Path

import pytest

import collect
from utils.checkpoint import read_json
from utils.report.results import find_stages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
COMMAND = re.compile(r"^    python collect\.py (docs/results/.*)\n\n((?:\|.*\n)+)", re.MULTILINE)
TABLES = COMMAND.findall(PAGE.read_text())
FIGURE = re.compile(r"\d+\.\d ± \d+\.\d")


def test_every_file_of_figures_is_shown():
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "results").glob("*.json")}
    assert files and files <= {word for command, _ in TABLES for word in shlex.split(command)}


@pytest.mark.parametrize(("command", "shown"), TABLES, ids=[command for command, _ in TABLES])
def test_the_table_is_what_its_command_prints(command, shown, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert collect.main(shlex.split(command)) == 0
    assert capsys.readouterr().out == shown


def test_figures_of_the_readme_stand_among_the_results():
    known = set(FIGURE.findall(PAGE.read_text()))
    figures = FIGURE.findall((ROOT / "README.md").read_text())
    assert figures and set(figures) <= known


@pytest.mark.parametrize("method", ["basic", "eums"])
def test_a_run_of_the_quickstart_lies_within_the_spread_of_the_seeds(method):
    """Of this folder's own run, when there is one; the documented figures cannot go stale unnoticed."""
    run = ROOT / "output" / "demo" / "fold0" / f"eval_{method}"
    if not (run / "metrics.json").exists():
        pytest.skip("scripts/quickstart.sh has not been run here")
    stages = find_stages([ROOT / "docs" / "results" / "discovery_demo.json"])
    known = [stage.metrics["novel_miou"] for stage in stages if stage.name == run.name]
    found = read_json(run / "metrics.json")["novel_miou"]
    assert abs(found - statistics.mean(known)) <= 3 * statistics.stdev(known)
