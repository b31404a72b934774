"""The folder of a stage: where it lies, whether the stage in it is finished, who uses it, and which commands made it.

Nothing here imports torch: whether a command is finished is known before the seconds that torch takes to import.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from utils.checkpoint import digest, read_json, write_json, write_text
from utils.config.common import Common
from utils.config.keys import deciding, first_difference
from utils.config.reader import dump
from utils.config.strict_yaml import read_mapping
from utils.errors import UserError
from utils.inputs import RECORD as DATA
from utils.inputs import DataFiles, changed_data

LOCK = "run.lock"
CONFIG, INPUTS = "config.yaml", "inputs.json"  # what a stage is made from, written before it starts
METRICS = "metrics.json"  # written last: a stage is finished when it exists
LAST, PREVIOUS = "last.pth", "previous.pth"  # the newest checkpoint, and the one before it in case that is damaged
COMMANDS = "commands.json"  # the commands that made the stage
NO_RESULT = ("resume", "expected")  # keys that do not change what a finished stage holds


@dataclass(frozen=True)
class Made:
    """Inputs of a stage, in addition to the keys that decide every stage (utils.config.common.Decides).

    reads    sections and keys of the configuration that decide its result
    inputs   name -> file or folder that it reads
    without  marks of keys that do not decide it, e.g. "later steps"
    """

    reads: tuple[str, ...]
    inputs: Mapping[str, Path]
    without: tuple[str, ...] = ()

    @cached_property
    def digests(self) -> dict[str, str]:
        """Name -> digest of the content of each input."""
        return {name: digest(path) for name, path in self.inputs.items()}


class State(NamedTuple):
    """State of the folder of a stage, compared with a run of the stage now.

    new        nothing, or the incomplete files of a stage that cannot be resumed
    resumable  a checkpoint of an unfinished run
    finished   a finished run
    differs    a run, finished or resumable, with other settings, inputs or data; `why` says which
    """

    name: Literal["new", "resumable", "finished", "differs"]
    why: str = ""


def stage_dir(cfg: Common, stage: str) -> Path:
    """<output_dir>/<split or task>/<stage>; dry runs have separate folders."""
    return cfg.output_dir / ("dry" if cfg.run.dry else "") / cfg.folder / stage


# ---- is it finished?


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a finished stage, whatever it was made from."""
    return (folder / METRICS).exists()


def state_of(cfg: Common, folder: Path, made: Made) -> State:
    """The state of a stage: the one place that decides whether a stage is done again, resumed or skipped.

    Compares the configuration, the contents of the inputs and the data files with those recorded in the folder. Raises
    UserError if a record is damaged.
    """
    started = (folder / CONFIG).exists() and (folder / INPUTS).exists()
    saved = (folder / LAST).exists() or (folder / PREVIOUS).exists()
    if not started or not (saved or is_finished(folder)):
        return State("new")
    if why := _other_settings(cfg, folder, made):
        return State("differs", f"settings ({why})")
    if why := changed_data(folder / DATA, cfg):
        return State("differs", f"data ({why})")
    return State("finished" if is_finished(folder) else "resumable")


def _other_settings(cfg: Common, folder: Path, made: Made) -> str | None:
    """The first key or input that differs from what the stage was started with, as one line."""
    config, before = _read(read_mapping, folder / CONFIG), _read(read_json, folder / INPUTS)
    if key := first_difference(cfg, config, made.reads, frozenset(made.without)):
        return key
    names = sorted(made.digests.keys() | before.keys())
    return next((f"its input '{n}' has changed since" for n in names if before.get(n) != made.digests.get(n)), None)


def _read(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """A record of a run folder. Raises UserError, with the cure, if it is damaged."""
    try:
        content = read(path)
    except UserError as error:
        raise UserError(f"{error}; damaged, so resume=false starts over") from None
    if not content and path.suffix == ".yaml":
        raise UserError(f"{path}: empty; damaged, so resume=false starts over")
    return content


def describe_finished(cfg: Common, folder: Path) -> str:
    """One line on a stage that is skipped."""
    stage = folder.relative_to(stage_dir(cfg, ""))
    return f"{stage}: already finished, skipped (resume=false does it again): {folder}"


# ---- what earlier stages left


def require_stage(cfg: Common, stage: str, file: str, made_by: str) -> Path:
    """A file of an earlier stage. Raises UserError unless that stage is finished and the file exists."""
    folder = stage_dir(cfg, stage)
    if not is_finished(folder):
        raise UserError(f"{folder}: stage '{stage}' has not finished; run first: python {made_by}")
    if not (folder / file).exists():
        raise UserError(
            f"{folder / file}: missing although the stage finished; redo it with resume=false: python {made_by}"
        )
    return folder / file


def trained_files(cfg: Common, files: DataFiles | None = None) -> tuple[str, dict[str, Path]]:
    """(name of the finished stage that `cfg.trained` names, {"best epoch": path, "last epoch": path} of its files).

    Of several numbered stages (`step*`) it is the last. `files` then also records that the next one does not exist, so
    that an evaluation of this one counts as outdated once there is a next one. Raises UserError if none is finished.
    """
    stage, made_by, names = cfg.trained
    parent, pattern = stage_dir(cfg, stage).parent, Path(stage).name
    numbers = [_number(path.name) for path in parent.glob(pattern) if is_finished(path)] if "*" in pattern else []
    if numbers:
        stage = str(Path(stage).with_name(pattern.replace("*", str(max(numbers)))))
        if files:
            files.add([parent / pattern.replace("*", str(max(numbers) + 1)) / METRICS])
    return Path(stage).name, {f"{name} epoch": require_stage(cfg, stage, f"{name}.pth", made_by) for name in names}


def _number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)) or 0)


# ---- a run in the folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Reserve the folder for this process; the kernel ends that with the process, even after kill -9.

    Raises UserError if another run holds the folder, if it contains files of no run, or if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_own(folder)
        handle = (folder / LOCK).open("a+", errors="replace")
    except OSError as error:
        raise UserError(f"output_dir={folder}: cannot be written ({error.strerror})") from None
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would live on in the workers of a killed run
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read(200) or "unknown"  # if it has not written its name yet
            problem = f"{folder} is in use by another run ({holder}); wait for it or choose another output_dir"
            raise UserError(problem) from None
        except OSError as error:
            raise UserError(f"output_dir={folder}: cannot be written ({error.strerror})") from None
        yield


def _require_own(folder: Path) -> None:
    """Raises UserError for a folder with files that no run wrote: a new run would delete them."""
    names = {path.name for path in folder.iterdir()}
    if names and not names & {LOCK, CONFIG, METRICS}:
        example = sorted(names)[0]
        raise UserError(f"{folder}: holds files that no run wrote ({example}), a run would delete them; move them away")


def open_stage(cfg: Common, folder: Path, made: Made) -> tuple[bool, Path | None]:
    """(finished, checkpoint to resume from) of a locked folder. Unless it is finished, the folder is ready for a run.

    `resume`: a path starts over from that checkpoint, "false" starts over, "auto" and "true" depend on `state_of`.
    Raises UserError if the stage differs, if "true" finds nothing to resume, and for an unusable path.
    """
    resume = cfg.resume.lower()
    if resume not in ("auto", "true", "false"):
        path = _given_checkpoint(cfg.resume, folder)
        _prepare(cfg, folder, made, fresh=True)
        return False, path
    state = State("new") if resume == "false" else state_of(cfg, folder, made)
    if state.name == "finished":
        return True, None
    if state.name == "differs":
        cure = "resume=false starts over, another output_dir keeps both"
        raise UserError(f"{folder} was made with other {state.why}; {cure}")
    if state.name == "new" and resume == "true":
        raise UserError(f"resume=true, but {folder} holds nothing to resume; use resume=auto")
    _prepare(cfg, folder, made, fresh=state.name == "new")
    return False, folder / LAST if state.name == "resumable" else None


def _given_checkpoint(resume: str, folder: Path) -> Path:
    path = Path(resume)
    if not path.is_file():
        raise UserError(f"resume={resume}: no such file; give auto, true, false or the path of a checkpoint")
    if path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"resume={resume}: lies in {folder}, which would start over; use resume=true, or move it")
    return path


def _prepare(cfg: Common, folder: Path, made: Made, fresh: bool) -> None:
    """Empty the folder if the stage starts `fresh`, remove half-written files, and record what it is made from."""
    digests = made.digests  # before the deletions: an input may be missing
    if fresh:
        (folder / METRICS).unlink(missing_ok=True)  # first: a kill during the deletions must not leave it finished
        for path in folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
    write_json(folder / INPUTS, digests)
    write_text(folder / CONFIG, dump(cfg, folder / CONFIG))


# ---- which commands made a stage


def record_command(cfg: Common, folder: Path, made: Made, script: str, place: tuple[int, int]) -> None:
    """Record that this command made, or found finished, the stage in `folder`; nothing unless it is finished.

    `place` is (k, n): the stage is the k-th of the n that the command makes.
    """
    command, known = command_name(cfg, script), _recorded(folder / COMMANDS)
    inputs = {name: str(path) for name, path in made.inputs.items()}
    entry = {"place": [*place], "reads": [*made.reads], "without": [*made.without], "inputs": inputs}
    if is_finished(folder) and known.get(command) != entry:
        write_json(folder / COMMANDS, {**known, command: entry})


def finished_command(cfg: Common, script: str) -> list[Path]:
    """Folders of the stages that a command makes, in order, if it made all of them before and all are still finished.

    Empty otherwise, and in any doubt, such as a damaged record: the command itself then decides.
    """
    command, found = command_name(cfg, script), {}
    for record in (path for depth in ("*", "*/*") for path in stage_dir(cfg, "").glob(f"{depth}/{COMMANDS}")):
        try:
            entry = _recorded(record).get(command)
            if entry is None:
                continue
            k, n = entry["place"]
            inputs = {name: Path(path) for name, path in entry["inputs"].items()}
            made = Made(tuple(entry["reads"]), inputs, tuple(entry["without"]))
            if (k, n) in found or state_of(cfg, record.parent, made).name != "finished":
                return []
            found[k, n] = record.parent
        except (UserError, OSError, ValueError, TypeError, LookupError, AttributeError):
            return []
    count = len(found)
    return (
        [found[place] for place in sorted(found)] if [*sorted(found)] == [(k + 1, count) for k in range(count)] else []
    )


def command_name(cfg: Common, script: str) -> str:
    """A script and a digest of its configuration, without the keys that change no result."""
    values = {key: value for key, value in deciding(cfg).items() if key.split(".")[0] not in NO_RESULT}
    text = json.dumps([Path(script).name, values], sort_keys=True)
    return f"{Path(script).name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _recorded(path: Path) -> dict[str, Any]:
    """The commands recorded in a file; none if it is missing or damaged, since the record only saves time."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
