"""report.py itself, whatever the pages show."""

import ast
from pathlib import Path

import pytest

import report
from reports.page import Page
from utils.systems import SYSTEMS

ROOT = Path(__file__).parents[1]


def test_a_page_is_written_and_its_tables_printed(tmp_path, monkeypatch, capsys):
    rows = [["method", "mIoU"], ["ours", "50.0"]]
    page = Page("A <title>", "<b>lead</b>", ["<section>one</section>"], {"first": rows, "": rows}, tmp_path / "run")
    monkeypatch.setattr(report, "open_page", lambda cfg: page)
    report.main(["configs/demo/discovery.yaml"])
    text = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>A &lt;title&gt;</h1>" in text and "<b>lead</b>" in text and "<section>one</section>" in text
    assert (tmp_path / "run" / "table.md").read_text() == (
        "first\n\n| method | mIoU |\n|---|--:|\n| ours | 50.0 |\n\n| method | mIoU |\n|---|--:|\n| ours | 50.0 |\n"
    )
    out = capsys.readouterr().out
    assert out.startswith("first\n  method  mIoU\n") and out.endswith(f"with pictures: {tmp_path}/run/report.html\n")
    assert "one run, seed 242133: " in out and "one run, seed 242133: " in text
    assert f"\ncurves: tensorboard --logdir {tmp_path}/run\n" in out


SHARED = ["report.py", "collect.py", *(f"utils/report/{path.name}" for path in (ROOT / "utils/report").glob("*.py"))]


@pytest.mark.parametrize("path", sorted(SHARED))
def test_no_system_is_named_in_shared_code(path):
    """Except with the published values."""
    named = {node.value for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Constant)}
    if not path.endswith("published.py"):
        assert not named & {*SYSTEMS, "basic", "EUMS", "ssul_m", "kmeans"}
