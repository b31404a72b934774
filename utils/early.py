"""What a command answers before torch is imported, which takes seconds: --help, a mistake, that it is finished already.

An entry script calls `answer` ahead of its other imports. Nothing that this file imports may import torch.
"""

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.checkpoint import digest, read_json, write_json
from utils.config.common import Common
from utils.config.keys import deciding
from utils.config.reader import load_config
from utils.errors import EXIT_DONE, EXIT_USER_ERROR, UserError, one_line
from utils.inputs import RECORD as DATA
from utils.inputs import changed_data
from utils.log import log
from utils.ranks import launched
from utils.run_folder import say_finished, stage_dir

RECORD = "commands.json"  # in a stage's folder: the commands that it is the outcome of
NEVER_ASKED = ("resume", "expected")  # keys of which nothing hangs in a finished stage


def answer(
    usage: str,
    script: str,
    systems: tuple[str, ...] = (),
    show: Callable[[Common, Path], int] | None = None,
    stages: int = 1,
) -> None:
    """Exit if the command line asks for help, holds a mistake, or if what it asks for is finished; else do nothing.

    usage, script and systems are those of `load_config`. `show` is given the folder of the finished stage and gives the
    exit status. `stages` is how many the command makes; 0 where only its `main` can tell, so that it decides itself.
    """
    try:
        with _warnings_once():
            cfg = load_config(None, usage, script, systems)
            folders = finished_stages(cfg, script) if stages and cfg.resume == "auto" and not launched() else []
        if not folders or len(folders) < stages:
            return
        for folder in folders:
            say_finished(cfg, folder)
        status = show(cfg, folders[-1]) if show else EXIT_DONE
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = EXIT_USER_ERROR
    raise SystemExit(status)


@contextlib.contextmanager
def _warnings_once() -> Iterator[None]:
    """Warnings of a block that ends the command; after any other, main reads the configuration again and gives them."""
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    log.addFilter(hold)
    try:
        yield
        held.clear()
    finally:
        log.removeFilter(hold)
        for record in held:
            log.handle(record)


def finished_stages(cfg: Common, script: str) -> list[Path]:
    """Folders of finished stages that this very command came by, made from the same inputs; where in doubt, none."""
    command = _command(cfg, script)
    records = sorted(stage_dir(cfg, "").glob(f"*/{RECORD}"))
    folders = [record.parent for record in records if _unchanged(record, command)]
    return [folder for folder in folders if not changed_data(folder / DATA, cfg)]


def record_command(cfg: Common, folder: Path, inputs: dict[str, Path], script: str | None = None) -> None:
    """Note in the folder of a finished stage the command that came by, and the files that the stage was made from."""
    command, known = _command(cfg, script or sys.argv[0]), _read(folder / RECORD)
    paths = {name: str(path) for name, path in inputs.items()}
    if known.get(command) != paths and (folder / "metrics.json").exists():
        write_json(folder / RECORD, {**known, command: paths})


def _command(cfg: Common, script: str) -> str:
    """A script with a configuration, but for what decides nothing."""
    values = {key: value for key, value in deciding(cfg).items() if key.split(".")[0] not in NEVER_ASKED}
    text = json.dumps([Path(script).name, values], sort_keys=True)
    return f"{Path(script).name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _unchanged(record: Path, command: str) -> bool:
    paths = _read(record).get(command)
    if paths is None or not (record.parent / "metrics.json").exists():
        return False
    try:
        now = {name: digest(Path(path)) for name, path in paths.items()}
        return bool(read_json(record.parent / "inputs.json") == now)
    except (UserError, OSError, AttributeError):  # a damaged file: the run has words for it
        return False


def _read(record: Path) -> dict[str, Any]:
    """What was noted; nothing where that cannot be read, as it saves time only."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
