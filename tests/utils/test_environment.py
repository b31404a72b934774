"""The description of a machine by report.py --env."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from utils import environment

ROOT = Path(__file__).parents[2]


def test_packages_are_those_that_are_installed(tmp_path):
    (tmp_path / "list.txt").write_text("numpy>=1  # needed\n\n# a remark\nno-such-package-here\n")
    found = environment._packages(tmp_path / "list.txt")
    assert found == {"numpy": version("numpy"), "no-such-package-here": None}


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    for name, text in (("one.txt", "numpy\nno-such-package-here"), ("two.txt", "other-package-here")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(environment, "LISTS", (tmp_path / "one.txt", tmp_path / "two.txt"))
    monkeypatch.setenv("DATA_ROOT", "/private/photos")
    lines = dict(line.split(":", 1) for line in environment.describe().splitlines())
    lines = {name: value.strip() for name, value in lines.items()}
    assert lines["packages"] == f"numpy {version('numpy')}" and lines["missing packages"] == "no-such-package-here"
    assert lines["optional packages"] == "none" and lines["DATA_ROOT"] == "set"
    assert "/private" not in str(lines) and str(ROOT) not in str(lines)


def test_the_state_of_the_project(monkeypatch):
    answers = {"rev-parse": "1234abc", "status": " M a.py\n?? b.py"}
    monkeypatch.setattr(environment, "_output", lambda *words: answers[words[1]])
    assert environment.git_state() == "git 1234abc, 2 files changed"
    answers |= {"rev-parse": "", "status": ""}
    assert environment.git_state() == "git unknown"


def test_it_is_told_without_a_slow_import():
    code = (
        "import runpy, sys; sys.argv = ['report.py', '--env']\n"
        "try: runpy.run_path('report.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'yaml', 'pydantic'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "torch " in done.stdout and done.stdout.startswith("project:")
