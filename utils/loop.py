"""The training loop of every system. A recipe says what a step computes; this file owns everything around it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from utils import checkpoint, dist
from utils.config.common import Training
from utils.errors import Interrupted, UserError
from utils.log import log
from utils.run import Run
from utils.schedules import poly_factor, poly_rate, step_factor, warm_poly_rate

DRY_EPOCHS, DRY_STEPS = 2, 2


class Recipe(ABC):
    """A method. `model` holds every tensor that a checkpoint keeps; `score` names the metric that picks the best.

    Without a score nothing is picked: the model of the last epoch is the result.
    """

    model: nn.Module
    score: str | None

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by the names that `learning_rates` has."""

    def learning_rates(self, settings: Training) -> dict[str, float]:
        """Initial learning rate of each parameter group."""
        return {"decoder": settings.lr, "backbone": settings.lr * settings.backbone_lr_factor}

    @abstractmethod
    def sources(self, epoch: int) -> Mapping[str, Any]:
        """Name -> data.loading.Source read in this epoch; called once at its start."""

    @abstractmethod
    def step(self, batch: dict[str, dict], epoch: int) -> dict[str, torch.Tensor]:
        """Losses whose sum is minimised, and figures without gradient that are reported with them."""

    @abstractmethod
    def evaluate(self) -> dict[str, Any]:
        """Validation metrics, `score` among them; the same on every process."""

    def before_step(self) -> None:  # noqa: B027
        """Called once before each optimiser step, however many parts its batch has; a moving average goes here."""

    def output_classes(self, metrics: dict[str, Any]) -> list[tuple[int, str]]:
        """Class number in the masks and name of each network output, to be saved with the best model; [] if unknown."""
        return []

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides model and optimizer, as plain values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what `state` gave."""


@dataclass
class Progress:
    """Where training stands: the next step to take, the best score so far, the metrics of the last validation."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_score: float = float("-inf")
    last: dict[str, Any] = field(default_factory=dict)


def fit(recipe: Recipe, settings: Training, run: Run) -> dict[str, Any]:
    """Train to the end, resuming where `run.resume_from` stopped; returns the metrics of the best and the last epoch.

    A recipe without a score has those of the last alone.

    Raises Interrupted after a signal (state saved), UserError when a loss is not finite (before the update).
    """
    epochs = DRY_EPOCHS if run.cfg.run.dry else settings.epochs
    run.saves_on_signal = True
    if dist.launched():
        torch.manual_seed(run.cfg.seed + dist.rank())  # networks start alike, dropout draws apart
    optimizer = build_optimizer(recipe.parameter_groups(), recipe.learning_rates(settings), settings)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.amp_dtype() == torch.float16)
    progress = _resume(recipe, optimizer, scaler, run) if run.resume_from else Progress()
    log.info("training from epoch %d, step %d; %s", progress.epoch, progress.step, _recipe_line(recipe, settings))
    while progress.epoch < epochs:
        sources = recipe.sources(progress.epoch)
        length = _epoch_length(sources, settings, run)
        steps = range(progress.step_in_epoch, length)
        batches = zip(*(source.epoch(progress.epoch, steps) for source in sources.values()), strict=True)
        recipe.model.train()
        meter = Meter(run, progress, length, epochs, images=settings.batch_size * len(sources))
        for parts in meter.timed(batches, len(steps)):
            batch = {name: _to_device(part, run.device) for name, part in zip(sources, parts, strict=True)}
            recipe.before_step()
            meter.rate = set_learning_rate(optimizer, settings, progress, length * epochs)
            losses, stop = _update(recipe, _parts(batch, settings.accumulate), optimizer, scaler, progress, run)
            progress.step_in_epoch += 1
            progress.step += 1
            meter.report(losses, settings.log_every)
            if settings.eval_steps and progress.step % settings.eval_steps == 0:  # before a stop, which would lose it
                dist.broadcast_buffers(recipe.model)
                _validate(recipe, progress, run)
            if stop:
                _save(run.last, recipe, optimizer, scaler, progress, run)
                raise Interrupted(f"stopped at step {progress.step}, saved; the same command goes on from here")
            if settings.save_every and progress.step % settings.save_every == 0:
                _save(run.last, recipe, optimizer, scaler, progress, run)
        _end_epoch(recipe, optimizer, scaler, progress, epochs, settings, run, meter)
    if recipe.score is None:
        return {**progress.last, "epoch": progress.epoch, "checkpoint": run.last.name}
    if not run.best.exists():  # resumed at the very end from a file elsewhere
        _validate(recipe, progress, run)
        dist.barrier()
    best = checkpoint.load(run.best)
    return {**best["metrics"], "epoch": best["epoch"], "checkpoint": run.best.name, "last": progress.last}


def build_optimizer(
    groups: dict[str, list[nn.Parameter]], rates: dict[str, float], settings: Training
) -> torch.optim.Optimizer:
    """SGD or AdamW over parameter groups with their own initial learning rates."""
    listed = [{"params": params, "base_lr": rates[name], "name": name} for name, params in groups.items()]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=settings.lr, weight_decay=settings.weight_decay)
    options = {"momentum": settings.momentum, "weight_decay": settings.weight_decay, "nesterov": settings.nesterov}
    return torch.optim.SGD(listed, lr=settings.lr, **options)


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: Training, progress: "Progress", total: int) -> float:
    """The schedule's rates for the next of `total` optimiser steps; returns that of the first group."""
    rates: Callable[[float], float] = {
        "step": lambda rate: rate * step_factor(progress.epoch, settings.milestones, settings.lr_decay),
        "poly": lambda rate: rate * poly_factor(progress.epoch / settings.epochs),
        "poly_steps": lambda rate: poly_rate(rate, progress.step, total),
        "warm_poly_steps": lambda rate: warm_poly_rate(rate, progress.step, total),
    }[settings.schedule]
    for group in optimizer.param_groups:
        group["lr"] = rates(group["base_lr"])
    return optimizer.param_groups[0]["lr"]


def _update(recipe, parts, optimizer, scaler, progress: Progress, run: Run) -> tuple[dict[str, torch.Tensor], bool]:
    """One optimiser step over the parts of a batch: the mean losses, and whether some process was asked to stop.

    The check for a finite loss waits for the last forward pass only, while its backward pass already runs.
    """
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for part in parts:
        with run.autocast():
            losses = {name: loss / len(parts) for name, loss in recipe.step(part, progress.epoch).items()}
            total = torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()
        sums = {name: loss.detach() + sums.get(name, 0) for name, loss in {**losses, "loss": total}.items()}
        if part is parts[-1]:
            finite = sums["loss"].isfinite().to("cpu", non_blocking=True)
            done = torch.cuda.Event() if run.device.type == "cuda" else None
            if done:
                done.record()
        scaler.scale(total).backward()
    if done:
        done.synchronize()
    broken, stop = dist.any_rank(not bool(finite), run.stop_requested)
    if broken:
        named = ", ".join(f"{name}={value.item():.4g}" for name, value in sums.items() if name != "loss")
        raise UserError(
            f"the loss is not finite at step {progress.step + 1} ({named}); stopped before the update, {run.last} is "
            "intact; try a smaller learning rate or amp=off"
        )
    dist.average_gradients([p for group in optimizer.param_groups for p in group["params"]])
    scaler.step(optimizer)
    scaler.update()
    return sums, stop


def _parts(batch: dict[str, dict], count: int) -> list[dict[str, dict]]:
    """The batch cut into `count` equal parts along its images."""
    if count == 1:
        return [batch]
    return [
        {name: {key: values[i::count] for key, values in source.items()} for name, source in batch.items()}
        for i in range(count)
    ]


def _end_epoch(recipe, optimizer, scaler, progress, epochs, settings, run, meter) -> None:
    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
    dist.broadcast_buffers(recipe.model)
    scores: dict[str, float] = {}
    if not settings.eval_steps and (progress.epoch % settings.eval_every == 0 or progress.epoch == epochs):
        scores = _validate(recipe, progress, run)
    meter.end_of_epoch(scores)
    _save(run.last, recipe, optimizer, scaler, progress, run)


def _validate(recipe, progress: Progress, run: Run) -> dict[str, float]:
    progress.last = recipe.evaluate()
    scores = _headline(progress.last)
    run.record(progress.step, {"epoch": progress.epoch, "val": scores})
    if recipe.score is None:
        return scores
    score = scores.get(recipe.score, 0.0)  # missing when validation holds none of these classes and absent=skip
    if score > progress.best_score:
        progress.best_score = score
        _save_best(run, recipe, progress)
    return scores


def _save(path: Path, recipe, optimizer, scaler, progress: Progress, run: Run) -> None:
    random_states = dist.gather(_random_state())
    if dist.is_main():
        state = {
            "model": recipe.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "recipe": recipe.state(),
            "progress": asdict(progress),
            "random": random_states,
            "history": run.history,
            "config": run.cfg.model_dump(mode="json"),
        }
        checkpoint.save(path, state)
    dist.barrier()


def _save_best(run: Run, recipe, progress: Progress) -> None:
    if dist.is_main():
        state = {
            "model": recipe.model.state_dict(),
            "metrics": progress.last,
            "epoch": progress.epoch,
            "classes": recipe.output_classes(progress.last),
            "config": run.cfg.model_dump(mode="json"),
        }
        checkpoint.save(run.best, state)


def _resume(recipe, optimizer, scaler, run: Run) -> Progress:
    state = checkpoint.load(run.resume_from)
    try:
        recipe.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        recipe.load_state(state["recipe"])
        progress = Progress(**state["progress"])
        _set_random_state(state["random"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{run.resume_from}: does not fit this run ({reason}); resume=false starts over") from None
    if not run.best.exists():  # resumed from a file elsewhere: its best model is not here, so the best starts anew
        progress.best_score = float("-inf")
    run.restore_history(state["history"])
    log.info("resumed from step %d", progress.step)
    return progress


def _random_state() -> dict[str, torch.Tensor]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else torch.empty(0, dtype=torch.uint8)
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(states: list[dict[str, torch.Tensor]]) -> None:
    if len(states) != dist.world_size():
        return  # another number of processes: the draws of dropout cannot be continued, everything else can
    own = states[dist.rank()]
    torch.set_rng_state(own["cpu"])
    if torch.cuda.is_available() and len(own["cuda"]):
        torch.cuda.set_rng_state(own["cuda"])


def _epoch_length(sources: Mapping[str, Any], settings: Training, run: Run) -> int:
    """Steps per epoch: as configured, else until the shortest source ends."""
    if run.cfg.run.dry:
        return DRY_STEPS
    shortest = min(sources, key=lambda name: sources[name].steps_per_pass)
    length = settings.iters_per_epoch or sources[shortest].steps_per_pass
    shares = dist.world_size() * settings.accumulate
    if settings.batch_size < 2 * shares:  # BatchNorm of a pooled feature needs two values
        raise UserError(
            f"batch_size={settings.batch_size}: less than 2 images for each of {dist.world_size()} processes and "
            f"{settings.accumulate} parts; raise it"
        )
    if settings.accumulate > 1 and settings.batch_size % shares:
        raise UserError(
            f"accumulate={settings.accumulate}: batch_size={settings.batch_size} does not part evenly over "
            f"{dist.world_size()} processes and {settings.accumulate} parts"
        )
    if not length:
        raise UserError(
            f"batch_size={settings.batch_size} is larger than the '{shortest}' image list; use a smaller one"
        )
    return length


def _to_device(batch: dict, device: torch.device) -> dict:
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.endswith("miou") and v is not None}


def _recipe_line(recipe: Recipe, settings: Training) -> str:
    counts = {name: sum(p.numel() for p in params) / 1e6 for name, params in recipe.parameter_groups().items()}
    trained = ", ".join(f"{name} {count:.2f} M" for name, count in counts.items())
    share = settings.batch_size / dist.world_size()
    parts = f", {share / settings.accumulate:g} at a time" if settings.accumulate > 1 else ""
    synchronized = any(isinstance(module, nn.SyncBatchNorm) for module in recipe.model.modules())
    statistics = "synchronised" if synchronized else "of each process"
    images = f"{share:g} images per process and source of {settings.batch_size} in all{parts}"
    return f"trained parameters: {trained}; {images}; BatchNorm statistics {statistics}"


class Meter:
    """Times and reports the steps of an epoch: progress bar on a terminal, history.jsonl, one log line at its end."""

    def __init__(self, run: Run, progress: Progress, length: int, epochs: int, images: int):
        self.run, self.progress, self.length, self.epochs = run, progress, length, epochs
        self.images, self.rate = images, 0.0  # in a step, of all sources; of the first parameter group
        self.start = time.perf_counter()
        self.seconds, self.waited, self.steps, self.latest = 0.0, 0.0, 0, {}

    def timed(self, batches, steps: int):
        """The batches, with the time spent waiting for them."""
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
        if self.progress.step % every == 0 or self.progress.step == 1:
            values = dist.mean(torch.stack(list(losses.values()))).tolist()
            self.latest = {name: round(value, 6) for name, value in zip(losses, values, strict=True)}
            self.run.record(
                self.progress.step, {"epoch": self.progress.epoch + 1, "train": self.latest, "lr": self.rate}
            )

    def end_of_epoch(self, scores: dict[str, float]) -> None:
        """The progress has moved on to the next epoch already."""
        left = (self.epochs - self.progress.epoch) * (time.perf_counter() - self.start)
        step = 1e3 * self.seconds / max(self.steps, 1)
        waiting = 1e3 * self.waited / max(self.steps, 1)
        if self.steps:  # of the last epoch: what comes before may be a warm-up
            speed = 1e3 * self.images / step
            self.run.cost = {"ms_per_step": step, "ms_waiting": waiting, "images_per_second": speed}
        parts = " ".join(f"{k} {v:.3f}" for k, v in {**self.latest, **scores}.items())
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if self.run.device.type == "cuda" else ""
        log.info(
            "epoch %d/%d step %d: %s, lr %.2g, %.0f ms/step (%.0f waiting), %.0f s left%s",
            *(self.progress.epoch, self.epochs, self.progress.step, parts, self.rate),
            *(step, waiting, left, memory),
        )
