"""Run the commands of a chain one after the other, and skip those whose stages are finished.

    python -m utils.chain [--gpus N] -- train_base.py CONFIG.yaml -- eval.py CONFIG.yaml method=base -- ...

One process decides for all commands, without importing torch; the unfinished ones run in separate processes, with
`--gpus N` by torchrun. The scripts of scripts/ build the list with the functions of scripts/env.sh. Besides a command,
an element of the list is one of

    --alone SCRIPT.py ...   a command that runs in one process even with --gpus
    --background [FILE]     the commands from here run at the same time as those after --foreground; their output goes
                            to FILE, and its last line is shown if one fails
    --foreground            ends the list of commands in the background
    --wait                  waits for the commands in the background, as the end of the chain does

The exit status is 0, or that of the first command that fails, which ends the chain: 1 an expected figure was missed, 2
wrong input, 75 stopped by a signal. SIGTERM, SIGUSR1 and SIGHUP are passed on to the running commands; the same chain
goes on afterwards.
"""

import contextlib
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event, Thread
from types import FrameType
from typing import IO

from utils.checkpoint import read_json
from utils.config.reader import load_config
from utils.entry import entry
from utils.errors import EXIT_DONE, EXIT_INTERRUPTED, UserError
from utils.log import log
from utils.report.tables import group_means, percent
from utils.run_folder import METRICS, describe_finished, finished_command

USAGE = "expected [--gpus N], then commands, each after --; see the start of utils/chain.py"
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # a terminal sends Ctrl-C to the commands itself
STOPS = (signal.SIGINT, *PASSED_ON)


@dataclass(frozen=True)
class Step:
    """A command SCRIPT.py ARGUMENT... of the chain."""

    words: tuple[str, ...]
    processes: int
    number: int

    @property
    def line(self) -> list[str]:
        """The command line to execute."""
        launcher = ["-m", "utils.launch", "--standalone", f"--nproc_per_node={self.processes}"]
        return [sys.executable, *(launcher if self.processes > 1 else []), *self.words]

    @property
    def configured(self) -> bool:
        """Whether it is a command `SCRIPT.py CONFIG.yaml key=value ...`."""
        _, *arguments = self.words
        return [word.endswith(".yaml") for word in arguments if "=" not in word] == [True]

    def finished(self) -> str:
        """A line on the stages of the command if all are finished; empty if it has to run, or in any doubt."""
        script, *arguments = self.words
        if not self.configured:
            return ""
        try:
            cfg = load_config(arguments, "", script)
            if cfg.resume != "auto" or cfg.expected or not (folders := finished_command(cfg, script)):
                return ""
            means = group_means(read_json(folders[-1] / METRICS))
        except (UserError, OSError):  # the command itself says what is wrong
            return ""
        others = f"; the {len(folders) - 1} before it as well" if len(folders) > 1 else ""
        shown = ", ".join(f"{name} {percent(value)}" for name, value in means.items())
        return f"{describe_finished(cfg, folders[-1])}{others}{shown and f'; mIoU: {shown}'}"


@dataclass
class Lane:
    """Commands that run one after the other, in the foreground or in the background."""

    background: bool = False
    file: str = ""  # of the output of the background
    steps: list[Step] = field(default_factory=list)

    @contextlib.contextmanager
    def output(self) -> Iterator[IO[str] | None]:
        """Where the output goes; None for the terminal."""
        if self.background:
            with open(self.file, "w+") if self.file else tempfile.TemporaryFile("w+") as file:
                yield file
        else:
            yield None


Phase = list[Lane]  # lanes that run at the same time; the foreground comes last


def parse(arguments: Sequence[str]) -> list[Phase]:
    """The phases of a chain, which run one after the other. Raises UserError for a list of another form."""
    elements = [list(words) for is_end, words in groupby(arguments, lambda word: word == "--") if not is_end]
    gpus = 1
    if elements and elements[0][0] == "--gpus":
        option = elements.pop(0)
        if len(option) != 2 or not option[1].isdecimal():
            raise UserError(USAGE)
        gpus = int(option[1])
    phases: list[Phase] = [[Lane()]]
    lane, number = phases[0][0], 0
    for first, *rest in elements:
        if first == "--background" and len(rest) <= 1:
            lane = Lane(True, rest[0] if rest else "")
            phases[-1].insert(0, lane)
        elif first == "--foreground" and not rest:
            lane = phases[-1][-1]
        elif first == "--wait" and not rest:
            phases.append([Lane()])
            lane = phases[-1][-1]
        else:
            words = rest if first == "--alone" else [first, *rest]
            if not words or not words[0].endswith(".py"):
                raise UserError(f"{' '.join([first, *rest])}: not a command SCRIPT.py ...; {USAGE}")
            number += 1
            lane.steps.append(Step(tuple(words), 1 if first == "--alone" else gpus, number))
    if not number:
        raise UserError(USAGE)
    return phases


class Chain:
    """The phases of a chain while they run."""

    def __init__(self, phases: Sequence[Phase]):
        self.phases = phases
        self.steps = [step for phase in phases for lane in phase for step in lane.steps]
        every = [set(step.words) for step in self.steps if step.configured]
        self.shared = set.intersection(*every) if every else set()
        self.running: list[subprocess.Popen[bytes]] = []
        self.stopped = Event()  # begin no more commands
        self.start, self.skipped, self.ran = time.monotonic(), 0, 0  # number of commands that were skipped, that ran

    def run(self) -> int:
        """Run all phases; the exit status of the first command that fails, else 0."""
        with self._signals():
            return next((status for phase in self.phases if (status := self._run_phase(phase))), EXIT_DONE)

    def _run_phase(self, phase: Phase) -> int:
        *background, foreground = phase
        found: dict[int, int] = {}
        threads = [
            Thread(target=lambda place=place, lane=lane: found.update({place: self._run_lane(lane)}))
            for place, lane in enumerate(background)
        ]
        for thread in threads:
            thread.start()
        status = self._run_lane(foreground)
        if status:
            self._stop(signal.SIGTERM)
        for thread in threads:
            thread.join()
        return status or next((found[place] for place in sorted(found) if found[place]), EXIT_DONE)

    def _run_lane(self, lane: Lane) -> int:
        with lane.output() as output:
            for step in lane.steps:
                if status := self._run_step(step, output):
                    if output and not self.stopped.is_set():
                        output.seek(0)
                        print(f"{self._name(step)}: {''.join(output.readlines()[-1:])}", end="", file=sys.stderr)
                    return status
        return EXIT_DONE

    def _run_step(self, step: Step, output: IO[str] | None) -> int:
        """Run a command unless it is finished; its exit status."""
        if self.stopped.is_set():
            return EXIT_INTERRUPTED
        place, finished = f"stage {step.number} of {len(self.steps)}", step.finished()
        print(
            f"{place}: {finished}" if finished else f"{place}{self._left()}: {self._name(step)}",
            file=output,
            flush=True,
        )
        if finished:
            self.skipped += 1
            return EXIT_DONE
        process = subprocess.Popen(step.line, stdout=output, stderr=output)
        self.running.append(process)
        if self.stopped.is_set():  # since the line above
            process.terminate()
        code = process.wait()
        self.ran += 1
        self.running.remove(process)
        if code >= 0:
            return code
        return EXIT_INTERRUPTED if self.stopped.is_set() else 128 - code

    def _left(self) -> str:
        """The remaining time, estimated from the mean time of the commands so far; empty before the third command."""
        if self.ran < 2:
            return ""
        rest = len(self.steps) - self.skipped - self.ran
        minutes = (time.monotonic() - self.start) / self.ran * rest / 60
        return f", about {max(1, round(minutes))} min left"

    def _name(self, step: Step) -> str:
        """The script, and the arguments that not all commands have."""
        script, *arguments = step.words
        return " ".join([script.removesuffix(".py"), *(word for word in arguments if word not in self.shared)])

    def _stop(self, number: int, _frame: FrameType | None = None) -> None:
        """Begin no more commands; the running ones get the signal, save and stop."""
        self.stopped.set()
        if number in PASSED_ON:
            for process in self.running:
                process.send_signal(number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        heeded = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
        previous = {number: signal.signal(number, self._stop) for number in heeded}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def main(argv: list[str] | None = None) -> int:
    log.setLevel(logging.ERROR)  # warnings about a configuration come from the command that has it
    return Chain(parse(sys.argv[1:] if argv is None else argv)).run()


if __name__ == "__main__":
    entry(main)
