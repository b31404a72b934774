"""When report.py makes its page again."""

import sys

import pytest

from utils.config.reader import load_config
from utils.inputs import DataFiles
from utils.report import unchanged
from utils.report.unchanged import record_page, unchanged_page
from utils.run import start_run


def load(tiny, *overrides):
    return load_config([str(tiny), *overrides], "")


@pytest.fixture
def page(tiny, tmp_path, monkeypatch):
    """The folder of a page on one finished stage, which read one image."""
    monkeypatch.setattr(sys, "argv", ["train_base.py"])
    files = DataFiles()
    (tmp_path / "image.jpg").write_text("one")
    files.add([tmp_path / "image.jpg"])
    with start_run(load(tiny), "base", (), {}, files=files) as run:
        run.finish({"miou": 0.5})
    folder = run.dir.parent
    (folder / "report.html").write_text("page")
    record_page(load(tiny), folder, "the table")
    return folder


def test_an_unchanged_page_is_kept(page, tiny):
    assert unchanged_page(load(tiny)) == "the table"
    assert unchanged_page(load(tiny, "data.workers=3")) == "the table"
    assert unchanged_page(load(tiny, "seed=9")) is None
    assert unchanged_page(load(tiny, "resume=false")) is None


def test_stages_that_are_skipped_change_nothing(page, tiny):
    with start_run(load(tiny), "base", (), {}) as run:
        assert run.finished
    assert unchanged_page(load(tiny)) == "the table"


def test_any_changed_file_counts(page, tiny, tmp_path):
    metrics, image = page / "base" / "metrics.json", tmp_path / "image.jpg"
    for path in (metrics, image):
        text, times = path.read_text(), path.stat()
        path.write_text("other")
        assert unchanged_page(load(tiny)) is None, path
        path.write_text(text)
        unchanged.os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert unchanged_page(load(tiny)) == "the table"
    (page / "clusters.yaml").write_text("1: dog")
    assert unchanged_page(load(tiny)) is None
    (page / "clusters.yaml").unlink()
    (page / "report.html").unlink()
    assert unchanged_page(load(tiny)) is None


def test_another_program_makes_another_page(page, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(unchanged, "ROOT", tmp_path)
    assert unchanged_page(load(tiny)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_from": 1}'])
def test_a_damaged_record_makes_it_again(page, tiny, text):
    (page / "report.json").write_text(text)
    assert unchanged_page(load(tiny)) is None


def test_a_page_may_lie_above_its_stages(page, tiny):
    (page / "report.json").unlink()
    assert unchanged_page(load(tiny)) is None
    record_page(load(tiny), page.parent, "of all splits")
    assert unchanged_page(load(tiny)) == "of all splits"
