"""Every part that a record names is there, and of the kind that its user expects."""

import subprocess
import sys
from pathlib import Path

import pytest

from reports import result_table_of
from utils.report.aggregate import ResultTable
from utils.systems import SYSTEMS, resolve, schema_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
def test_every_part_is_there(system):
    assert SYSTEMS[system.name] is system
    assert schema_of(system.name)().system == system.name
    assert isinstance(result_table_of(system.name), ResultTable)
    assert all(callable(resolve(part)) for part in (system.segmenter, system.page))
    assert callable(resolve(system.data).open) and callable(resolve(system.data).evaluation)
    assert all((ROOT / script).is_file() for script in system.stages)
    folders = {ROOT / room / system.setting for room in ("data", "configs", "scripts", "models")}
    assert {folder for folder in folders if not folder.is_dir()} <= {ROOT / "models" / "discovery"}
    assert (ROOT / "docs" / f"{system.setting}.md").is_file()


def test_schemas_are_found_without_importing_torch():
    """A mistake in a configuration is answered in a fraction of a second."""
    code = "import sys, utils.systems as s; [s.schema_of(n) for n in s.SYSTEMS]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_unknown_part_is_an_error():
    with pytest.raises((ImportError, AttributeError)):
        resolve("utils.systems:Nothing")
