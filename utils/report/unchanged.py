"""Whether report.py would make the same page again: a record of everything that a page was made from.

Compared are the configuration, all files next to the page and in the stages, the data files that the stages read, and
this program. Nothing here imports torch.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from utils.checkpoint import read_json, write_json
from utils.config.common import Common
from utils.errors import UserError
from utils.inputs import RECORD as DATA
from utils.inputs import changed_data, stamp
from utils.run_folder import COMMANDS, LOCK, command_name, stage_dir

RECORD = "report.json"  # next to the page
NO_RESULT = {LOCK, COMMANDS, RECORD}  # files that change without a change of what is shown
ROOT = Path(__file__).parents[2]
PROGRAM = ("report.py", "reports/**/*.py", "data/**/*.py", "models/**/*.py", "utils/**/*.py")


def record_page(cfg: Common, folder: Path, printed: str) -> None:
    """Write what the page in `folder` was made from, and what report.py printed. The page must be written before."""
    write_json(folder / RECORD, {"made_from": _made_from(cfg, folder), "printed": printed})


def unchanged_page(cfg: Common) -> str | None:
    """The former output of report.py if it would write the same page again; None otherwise, and in any doubt."""
    deepest = stage_dir(cfg, "")
    for folder in (deepest, *deepest.parents) if cfg.resume == "auto" else ():  # a page may cover several networks
        try:
            record = read_json(folder / RECORD) if (folder / RECORD).is_file() else None
            if record and record["made_from"] == _made_from(cfg, folder) and not _has_other_data(cfg, folder):
                return str(record["printed"])
        except (UserError, OSError):
            return None
        if folder == cfg.output_dir:
            break
    return None


def _made_from(cfg: Common, folder: Path) -> str:
    """Digest of names, sizes and times of all files, and of the configuration."""
    files = [(os.path.relpath(path, folder), stamp(str(path))) for path in _files(folder)]
    program = [(str(path), stamp(str(path))) for pattern in PROGRAM for path in ROOT.glob(pattern)]
    text = json.dumps([command_name(cfg, "report.py"), sorted(files), sorted(program)])
    return hashlib.sha256(text.encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without TensorBoard's and those that say nothing of results."""
    for name, below, files in os.walk(folder):
        below[:] = [directory for directory in below if directory != "tb"]
        yield from (Path(name, file) for file in files if file not in NO_RESULT)


def _has_other_data(cfg: Common, folder: Path) -> bool:
    """Whether a file of the data set that a stage read has changed."""
    return any(
        changed_data(record, cfg) for depth in ("*", "*/*", "*/*/*") for record in folder.glob(f"{depth}/{DATA}")
    )
