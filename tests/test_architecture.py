"""Who may import whom: the order of the rooms, and that the engine and the general scripts name no system."""

import ast
from pathlib import Path

import pytest

from utils.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
BELOW = {  # room -> rooms that it may import
    "utils": {"utils"},
    "losses": {"losses", "utils"},
    "data": {"data", "utils"},
    "models": {"models", "utils"},
    "reports": {"reports", "data", "utils"},
}
ENGINE = ("recipe", "step", "loop", "meter", "run", "run_folder", "entry", "chain", "checkpoint", "dist", "schedules")
GENERAL = ("eval", "predict", "report", "collect", "export")
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_downwards(room):
    above = (BELOW.keys() | SCRIPTS) - BELOW[room]
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        wrong = {name for name in imported(path) if name.split(".")[0] in above}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_losses_know_tensors_and_the_ignored_label_only():
    for path in (ROOT / "losses").glob("*.py"):
        assert {name for name in imported(path) if name.startswith("utils")} <= {"utils.labels"}, path.name


@pytest.mark.parametrize("name", [f"utils/{name}.py" for name in ENGINE] + [f"{name}.py" for name in GENERAL])
def test_the_engine_and_the_general_scripts_name_no_system(name):
    tree = ast.parse((ROOT / name).read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not words & SYSTEMS.keys()
    modules = {part for module in imported(ROOT / name) for part in module.split(".")}
    assert not modules & {*SYSTEMS, "discovery", "incremental", "contrast", "probing"}


@pytest.mark.parametrize("name", ["eval", "predict", "report", "collect", "export"])
def test_general_scripts_import_no_entry_script(name):
    assert not {module.split(".")[0] for module in imported(ROOT / f"{name}.py")} & SCRIPTS


def test_only_report_and_collect_import_reports():
    """Training does not depend on what is shown of it."""
    importing = {path.stem for path in ROOT.glob("*.py") if any(m.split(".")[0] == "reports" for m in imported(path))}
    assert importing == {"report", "collect"}
