"""Progress of training and its report: progress bar, history.jsonl, one log line per epoch."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from utils import dist
from utils.log import log
from utils.run import Run


@dataclass
class Progress:
    """Position in training: next step, best score so far, metrics of the last validation."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_score: float = float("-inf")
    last: dict[str, Any] = field(default_factory=dict)


class Meter:
    """Times and reports the steps of an epoch: progress bar on a terminal, history.jsonl, one log line at its end."""

    def __init__(self, run: Run, progress: Progress, length: int, epochs: int, images: int):
        self.run, self.progress, self.length, self.epochs = run, progress, length, epochs
        self.images, self.rate = images, 0.0  # images per step, all sources; learning rate of the first parameter group
        self.start = time.perf_counter()
        self.seconds, self.waited, self.steps = 0.0, 0.0, 0
        self.latest: dict[str, float] = {}

    def timed(self, batches, steps: int):
        """Yield the batches; measure the time spent waiting for them."""
        bar = tqdm(total=steps, desc=f"epoch {self.progress.epoch + 1}/{self.epochs}", leave=False, disable=None)
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            parts = next(iterator, None)
            self.waited += time.perf_counter() - before
            if parts is None:
                break
            yield parts
            self.steps += 1
            self.seconds = time.perf_counter() - self.start
            bar.update()
        bar.close()

    def report(self, losses: dict[str, torch.Tensor], every: int) -> None:
        """Record the losses, averaged over processes, in history.jsonl: after step 1 and every `every` steps."""
        if self.progress.step % every == 0 or self.progress.step == 1:
            values = dist.mean(torch.stack(list(losses.values()))).tolist()
            self.latest = {name: round(value, 6) for name, value in zip(losses, values, strict=True)}
            self.run.record(
                self.progress.step, {"epoch": self.progress.epoch + 1, "train": self.latest, "lr": self.rate}
            )

    def end_of_epoch(self, scores: dict[str, float]) -> None:
        """Log the epoch that has ended and set the run's cost; `progress.epoch` is the number of finished epochs."""
        left = (self.epochs - self.progress.epoch) * (time.perf_counter() - self.start)
        step = 1e3 * self.seconds / max(self.steps, 1)
        waiting = 1e3 * self.waited / max(self.steps, 1)
        if self.steps:  # the last epoch counts; earlier ones may include warm-up
            speed = 1e3 * self.images / step
            self.run.cost = {"ms_per_step": step, "ms_waiting": waiting, "images_per_second": speed}
        parts = " ".join(f"{k} {v:.3f}" for k, v in {**self.latest, **scores}.items())
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if self.run.device.type == "cuda" else ""
        log.info(
            "epoch %d/%d step %d: %s, lr %.2g, %.0f ms/step (%.0f waiting), %.0f s left%s",
            *(self.progress.epoch, self.epochs, self.progress.step, parts, self.rate),
            *(step, waiting, left, memory),
        )
