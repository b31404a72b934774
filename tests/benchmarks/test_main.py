"""All benchmarks as one command, on inputs that take no time, and the page that shows a run."""

from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as main
from benchmarks.rows import Row, _close
from utils.checkpoint import read_json

DOCS = Path(__file__).parents[2] / "docs"


def test_every_row_checks_and_measures_both_ways():
    """Rows without a check of their own have the same values by construction, or draw by another generator."""
    threads = torch.get_num_threads()
    try:
        found = main.run("", repeats=1, quick=True)
    finally:
        torch.set_num_threads(threads)
    names = [row["name"] for row in found["rows"]]
    assert len(names) == len(set(names)) > 20
    assert all(row["theirs_ms"] > 0 and row["ours_ms"] > 0 for row in found["rows"])
    noted = {row["name"] for row in found["rows"] if "data.transforms=fast" in row["note"]}
    assert noted == {name for name in names if name.endswith(", fast")}
    assert all(row["ours_mib"] < row["theirs_mib"] for row in found["memory"])


def test_the_least_time_of_each_way_counts(monkeypatch):
    """Three pairs for four images: 8 ms and 2 ms at best."""
    seconds = iter([0.010, 0.003, 0.008, 0.004, 0.009, 0.002])
    monkeypatch.setattr(main, "cpu_seconds", lambda _: next(seconds))
    found = main.measure(Row("work", lambda: None, lambda: None, count=4), repeats=3)
    assert found["theirs_ms"] == pytest.approx(2) and found["ours_ms"] == pytest.approx(0.5)
    assert found["ratio"] == pytest.approx(4)


def test_ways_that_differ_are_not_timed():
    theirs, ours = (lambda value=value: torch.tensor(value) for value in (1.0, 1.1))
    with pytest.raises(AssertionError):
        main.measure(Row("work", theirs, ours, same=lambda: _close(theirs, ours, 1e-6)), repeats=1)


def test_the_page_shows_the_run_that_is_kept():
    assert main.markdown(read_json(DOCS / "performance.json")) in (DOCS / "performance.md").read_text()
