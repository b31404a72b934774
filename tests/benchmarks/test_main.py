"""All benchmarks as one command, on inputs that take no time, and the page that shows a run."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as main
from benchmarks import growth
from benchmarks.rows.row import PeakMemory, Row, close
from utils.checkpoint import read_json

DOCS = Path(__file__).parents[2] / "docs"


def test_every_row_checks_and_measures_both_ways():
    """Rows without a check have the same values by construction, or use another random generator."""
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
    assert all(0 < row["ours_mib"] < 1.2 * row["theirs_mib"] for row in found["memory"])
    assert all(row["ours_mib"] < row["theirs_mib"] for row in found["memory"] if row["name"].startswith("SSUL"))
    assert all(len(row["costs"]) == 2 for row in found["growth"]) and len(found["growth"]) == len(growth.PARTS)


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
        main.measure(close("work", theirs, ours), repeats=1)


def test_peak_of_the_tensors_alive_by_hand():
    """Maps of 1 MiB: two while the second is computed from the first, which nothing keeps."""
    mib = 2**20
    layer, x = nn.Linear(1024, 1024, bias=False), torch.zeros(256, 1024)
    with PeakMemory([layer.weight, x]) as memory:
        y = layer(x).relu()
        assert (memory.live, memory.peak) == (mib, 2 * mib)
        y.sum().backward()
        assert memory.live > 4 * mib  # the gradient of the weights
        del y
        assert memory.live < 4 * mib + 100


def test_memory_and_seconds_of_a_call_are_its_own():
    """40 MiB of ones, held for a moment: not what the process holds besides."""
    kept = torch.ones(10 * 2**20)
    found = growth.in_own_process(lambda: torch.ones(10 * 2**20).sum())
    assert 38 < found.mib < 60 and 0 < found.seconds < 5 and len(kept)


def test_tables_go_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{main.BEGIN}old{main.END}\nafter\n")
    for _ in range(2):
        main.write_page(page, "new")
        assert page.read_text() == f"before\n{main.BEGIN}new{main.END}\nafter\n"
    main.write_page(tmp_path / "none.md", "new")
    assert not (tmp_path / "none.md").exists()


def test_the_page_shows_the_run_that_is_kept():
    assert main.markdown(read_json(DOCS / "performance.json")) in (DOCS / "performance.md").read_text()
