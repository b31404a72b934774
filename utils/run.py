"""A run of a stage: device, precision, log, history, signals, seeds, and the files that it writes when it finishes."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from utils import checkpoint, dist
from utils.config.common import Common
from utils.config.keys import flatten
from utils.entry import entry as entry  # so that an entry script imports all it needs from here
from utils.entry import guarded as guarded
from utils.environment import git_hash
from utils.errors import Interrupted, UserError, one_line
from utils.inputs import RECORD, DataFiles
from utils.log import log
from utils.report.board import open_board
from utils.run_folder import (
    CONFIG,
    LAST,
    METRICS,
    PREVIOUS,
    Made,
    describe_finished,
    locked,
    open_stage,
    record_command,
    stage_dir,
)

T = TypeVar("T")
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class Run:
    """A running stage: everything that it needs in addition to its method.

    finished         nothing is left to do
    resume_from      checkpoint to go on from, None for a new run
    files            data files that the stage reads; their state is recorded
    saves_on_signal  the training loop saves and then stops; other stages stop at once and start over
    stop_requested   a signal has come
    history          reports of the training so far
    cost             seconds, speed and memory of training, see utils.meter
    """

    cfg: Common
    stage: str
    dir: Path
    device: torch.device
    finished: bool = False
    resume_from: Path | None = None
    files: DataFiles | None = field(default=None, repr=False)
    saves_on_signal: bool = False
    stop_requested: bool = False
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)
    cost: dict[str, float] = field(default_factory=dict, repr=False)
    started: float = field(default_factory=time.perf_counter, repr=False)
    _writer: Any = field(default=None, repr=False)

    @property
    def last(self) -> Path:
        return self.dir / LAST

    @property
    def previous(self) -> Path:
        return self.dir / PREVIOUS

    @property
    def best(self) -> Path:
        return self.dir / "best.pth"

    def autocast(self) -> torch.autocast:
        dtype = self.amp_dtype()
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    def amp_dtype(self) -> torch.dtype | None:
        """Type of mixed precision; None for float32. By default bf16 or, on older GPUs, fp16; None on the CPU."""
        choice = self.cfg.amp
        if choice == "auto":
            if self.device.type != "cuda":
                return None
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[choice]

    def place(self, model: torch.nn.Module, synchronize: bool = True) -> torch.nn.Module:
        """The model on the device of the run, with the configured memory layout and compilation.

        On several GPUs, BatchNorm layers become SyncBatchNorm unless `synchronize` is off.
        """
        options = self.cfg.run
        if synchronize and dist.launched() and self.device.type == "cuda":  # SyncBatchNorm has no CPU form
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model.to(self.device)
        model.to(memory_format=torch.channels_last if options.channels_last else torch.contiguous_format)
        if options.compile:
            model.compile()
        return model

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Write a line of history.jsonl and the same numbers for TensorBoard; the main process only."""
        if not dist.is_main():
            return
        self.history.append({"step": step, **values})
        with (self.dir / "history.jsonl").open("a") as file:
            file.write(json.dumps(self.history[-1]) + "\n")
        if not (writer := self.writer()):
            return
        for name, value in flatten(values).items():
            if isinstance(value, (int, float)) and name not in ("epoch", "seconds"):
                writer.add_scalar(name.replace(".", "/"), value, step)
        writer.flush()

    def writer(self) -> Any:
        """The TensorBoard writer; False, after one warning, if it cannot be used."""
        if self._writer is None:
            self._writer = open_board(self.dir / "tb") or False
        return self._writer

    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json; the stage must be finished."""
        return checkpoint.read_json(self.dir / METRICS)

    def restore_history(self, reports: list[dict[str, Any]]) -> None:
        """Reset the history to that of a checkpoint; after a kill, the file holds later or incomplete lines."""
        self.history = list(reports)
        if dist.is_main():
            text = "".join(json.dumps(report) + "\n" for report in reports)
            checkpoint.write_text(self.dir / "history.jsonl", text)

    def _cost(self) -> dict[str, Any]:
        """Content of cost.json: time, speed, memory and device of the stage, since its last start."""
        gpu = self.device.type == "cuda"
        return {
            "seconds": round(time.perf_counter() - self.started, 1),
            **{name: round(value, 2) for name, value in self.cost.items()},
            "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if gpu else None,
            "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
            "processes": dist.world_size(),
            "amp": str(self.amp_dtype()).removeprefix("torch."),
            "resumed": self.resume_from is not None,
        }

    def record_data(self) -> None:
        """Write data.json. The training loop calls this before its first step, `finish` for other stages."""
        if self.files and dist.is_main():
            self.files.write(self.dir / RECORD, self.cfg)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write cost.json and then metrics.json, which makes the stage finished. All other files must be complete."""
        self.record_data()
        dist.barrier()
        if dist.is_main():
            checkpoint.write_json(self.dir / "cost.json", self._cost())
            sha = hashlib.sha256((self.dir / CONFIG).read_bytes()).hexdigest()
            checkpoint.write_json(self.dir / METRICS, {**metrics, "config_sha256": sha})
        dist.barrier()  # the other processes may read it
        log.info("%s: finished, results in %s", self.stage, self.dir)


@contextlib.contextmanager
def start_run(
    cfg: Common,
    stage: str,
    reads: tuple[str, ...],
    inputs: dict[str, Path],
    *,
    without: tuple[str, ...] = (),
    files: DataFiles | None = None,
    seed: bool = True,
    place: tuple[int, int] = (1, 1),
) -> Iterator[Run]:
    """Open the run folder of a stage and yield its Run; nothing is left to do if it is `finished`.

    `reads`, `inputs` and `without` say what decides the result (utils.run_folder.Made); `files` are the data files that
    the stage reads. `place` is (k, n) if the command makes n stages and this is the k-th. All random number generators
    are seeded unless `seed` is off.
    Raises UserError if another run holds the folder, or if it contains a run with other settings, inputs or data.
    """
    device = pick_device(cfg)
    dist.init(device)
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    folder, made = stage_dir(cfg, stage), Made(reads, inputs, without)
    with contextlib.ExitStack() as held:
        _on_main(lambda: held.enter_context(locked(folder)))
        finished, resume_from = _on_main(lambda: open_stage(cfg, folder, made))
        run = Run(cfg, stage, folder, device, finished, resume_from, files)
        if finished:
            if dist.is_main():
                print(describe_finished(cfg, folder))
            yield run
        else:
            with _logging(run), _signals(run):
                if seed:
                    seed_everything(cfg.seed, cfg.run.deterministic)  # the same networks on every process
                yield run
        if dist.is_main():
            record_command(cfg, folder, made, sys.argv[0], place)


def _on_main(action: Callable[[], T]) -> T:
    """The result of `action`, which runs on the main process only, on every process. Its errors are raised on all."""
    outcome: T | UserError | None = None
    if dist.is_main():
        try:
            outcome = action()
        except (UserError, OSError) as error:
            outcome = UserError(one_line(error))
    outcome = dist.broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return cast(T, outcome)


def pick_device(cfg: Common) -> torch.device:
    """The device of this process. Raises UserError if `device` names none of this machine."""
    name = cfg.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: unknown; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device={name}: this machine has no usable CUDA device; use device=cpu")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"device={name}: this machine has {count} CUDA devices; use cuda:0 to cuda:{count - 1}")
        device = torch.device("cuda", dist.local_rank() if dist.launched() else device.index or 0)
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)  # so that cost.json describes this stage only
    return device


def seed_everything(seed: int, deterministic: bool) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


@contextlib.contextmanager
def _signals(run: Run) -> Iterator[None]:
    """At a signal, a training run saves and stops, other stages stop at once. A second SIGINT stops any run at once.

    The signals are SIGTERM, SIGINT, SIGUSR1 (which SLURM can send before the time limit) and SIGHUP; signals that are
    ignored at the start, as SIGHUP by nohup, stay ignored.
    """

    def request(number, _frame):
        if run.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        run.stop_requested = True
        if not run.saves_on_signal:
            raise Interrupted(f"{run.stage}: stopped by a signal; the same command does this stage again")

    heeded = [s for s in STOPS if signal.getsignal(s) != signal.SIG_IGN]
    previous = {s: signal.signal(s, request) for s in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _logging(run: Run) -> Iterator[None]:
    handlers: list[logging.Handler] = []
    if dist.is_main():
        handlers = [logging.FileHandler(run.dir / "log.txt"), logging.StreamHandler(sys.stdout)]
        handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.setLevel(logging.INFO if dist.is_main() else logging.ERROR)
    log.propagate = False
    for handler in handlers:
        log.addHandler(handler)
    if dist.is_main():
        handlers[0].handle(_note("command: " + " ".join(sys.argv)))
        handlers[0].handle(
            _note(f"versions: python {platform.python_version()}, torch {torch.__version__}, git {git_hash()}")
        )
        handlers[0].handle(_note(f"device: {run.device}, processes: {dist.world_size()}, amp: {run.amp_dtype()}"))
    try:
        yield
    finally:
        if run._writer:
            run._writer.close()
        for handler in handlers:
            log.removeHandler(handler)
            handler.close() if isinstance(handler, logging.FileHandler) else handler.flush()


def _note(text: str) -> logging.LogRecord:
    return logging.LogRecord(log.name, logging.INFO, "", 0, text, None, None)
