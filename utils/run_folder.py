"""The folder of a stage: where it lies, who holds it, and whether the stage is finished, resumable or new."""

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from utils import checkpoint
from utils.config.common import Common
from utils.config.keys import first_difference
from utils.config.reader import dump
from utils.config.strict_yaml import read_mapping
from utils.errors import UserError, one_line
from utils.inputs import RECORD, changed_data
from utils.ranks import is_main

LOCK = "run.lock"
KEEP = (LOCK,)  # survives a fresh start in the same folder
LAST, PREVIOUS = "last.pth", "previous.pth"  # the newest checkpoint, and the one before it, in case that is damaged
NEW_INPUTS = {"memory"}  # that folders of earlier versions do not name


def stage_dir(cfg: Common, stage: str) -> Path:
    """<output_dir>/<split or task>/<stage>; dry runs stay apart."""
    return cfg.output_dir / ("dry" if cfg.run.dry else "") / cfg.folder / stage


def say_finished(cfg: Common, folder: Path) -> None:
    stage = folder.relative_to(stage_dir(cfg, ""))
    print(f"{stage}: already finished, skipped (resume=false does it again): {folder}")


def require_stage(cfg: Common, stage: str, file: str, made_by: str) -> Path:
    """A file of an earlier stage, only when that stage is finished."""
    folder = stage_dir(cfg, stage)
    if not (folder / "metrics.json").exists():
        raise UserError(f"{folder}: stage '{stage}' has not finished; run first: python {made_by}")
    if not (folder / file).exists():
        raise UserError(
            f"{folder / file}: missing although the stage finished; redo it with resume=false: python {made_by}"
        )
    return folder / file


def trained_files(cfg: Common) -> tuple[str, dict[str, Path]]:
    """(name of the finished stage that `cfg.trained` tells, its files by what they are: best epoch, last epoch)."""
    stage, made_by, files = cfg.trained
    parent, pattern = stage_dir(cfg, stage).parent, Path(stage).name
    if "*" in pattern:
        found = [path for path in parent.glob(pattern) if (path / "metrics.json").exists()]
        last = max(found, key=lambda path: int("".join(filter(str.isdigit, path.name)) or 0), default=None)
        stage = str(Path(stage).with_name(last.name)) if last else stage
    return Path(stage).name, {f"{file} epoch": require_stage(cfg, stage, f"{file}.pth", made_by) for file in files}


def decide(
    cfg: Common, folder: Path, inputs: Mapping[str, str], reads: tuple[str, ...], without: Collection[str] = ()
) -> tuple[bool, Path | None] | str:
    """(finished, checkpoint to resume) after preparing the folder, or what is wrong in one line.

    `inputs` are digests by name; `reads` and `without` say which keys are decisive (utils.config.keys).
    """
    try:
        return _decide(cfg, folder, inputs, reads, without)
    except (UserError, OSError) as error:  # the other processes wait for an answer
        return one_line(error)


def _decide(
    cfg: Common, folder: Path, inputs: Mapping[str, str], reads: tuple[str, ...], without: Collection[str]
) -> tuple[bool, Path | None] | str:
    resume = cfg.resume.lower()
    if resume not in ("auto", "true", "false"):
        path = Path(cfg.resume)
        if not path.is_file():
            return f"resume={cfg.resume}: no such file; give auto, true, false or the path of a checkpoint"
        if path.resolve().is_relative_to(folder.resolve()):
            return f"resume={cfg.resume}: lies in {folder}, which would start over; use resume=true, or move it"
        prepare(cfg, folder, inputs, fresh=True)
        return False, path
    last = folder / LAST
    started = (folder / "config.yaml").exists() and (folder / "inputs.json").exists()
    resumable = last.exists() or (folder / PREVIOUS).exists()
    finished = (folder / "metrics.json").exists()
    if resume != "false" and started and (finished or resumable):
        difference, other = _difference(cfg, folder, inputs, reads, without), "settings"
        if not difference:
            difference, other = changed_data(folder / RECORD, cfg), "data"
        if difference:
            cure = "resume=false starts over, another output_dir keeps both"
            return f"{folder} was made with other {other} ({difference}); {cure}"
        if finished:
            return True, None
        prepare(cfg, folder, inputs, fresh=False)
        return False, last
    if resume == "true":
        return f"resume=true, but {folder} holds nothing to resume; use resume=auto"
    prepare(cfg, folder, inputs, fresh=True)
    return False, None


def prepare(cfg: Common, folder: Path, inputs: Mapping[str, str], fresh: bool) -> None:
    """Empty the folder unless a run goes on in it, and write what it is made from."""
    if fresh:
        (folder / "metrics.json").unlink(missing_ok=True)  # first: a kill in between must not leave it finished
        for path in folder.iterdir():
            if path.name not in KEEP:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
    checkpoint.write_json(folder / "inputs.json", dict(inputs))
    checkpoint.write_text(folder / "config.yaml", dump(cfg, folder / "config.yaml"))


def _difference(
    cfg: Common, folder: Path, inputs: Mapping[str, str], reads: tuple[str, ...], without: Collection[str]
) -> str | None:
    """What a run was made with that is not so now: a key of its configuration, or an input."""
    config, before = _read(read_mapping, folder / "config.yaml"), _read(checkpoint.read_json, folder / "inputs.json")
    names = sorted((inputs.keys() | before.keys()) - (NEW_INPUTS - before.keys()))
    changed = [f"its input '{name}' has changed since" for name in names if before.get(name) != inputs.get(name)]
    return first_difference(cfg, config, reads, frozenset(without)) or next(iter(changed), None)


def _read(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """A file of a run folder; UserError, with the cure, when it is damaged."""
    try:
        content = read(path)
    except UserError as error:
        raise UserError(f"{error}; damaged, so resume=false starts over") from None
    if not content and path.suffix == ".yaml":
        raise UserError(f"{path}: empty; damaged, so resume=false starts over")
    return content


def require_own(folder: Path) -> None:
    """UserError for a folder with files that no run left: a fresh start would delete them."""
    names = {path.name for path in folder.iterdir()}
    if names and not names & {LOCK, "config.yaml", "metrics.json"}:
        example = sorted(names)[0]
        raise UserError(f"{folder}: holds files that no run wrote ({example}), a run would delete them; move them away")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run; the kernel frees it however the process ends."""
    from utils import dist  # takes seconds: torch

    problem, handle = None, None
    if is_main():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_own(folder)
            handle = (folder / LOCK).open("a+", errors="replace")
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would live on in the workers of a killed run
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
        except UserError as error:
            problem = str(error)
        except BlockingIOError:
            assert handle
            handle.seek(0)
            holder = handle.read(200) or "unknown"  # between its lock and its name
            problem = f"{folder} is in use by another run ({holder}); wait for it or choose another output_dir"
        except OSError as error:
            problem = f"output_dir={folder}: cannot be written ({error.strerror})"
    problem = dist.broadcast(problem)
    if problem:
        raise UserError(problem)
    try:
        yield
    finally:
        if handle:
            handle.close()
