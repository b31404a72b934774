"""Training loop of all systems: epochs, validation, checkpoints, resuming. The recipe computes the losses."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils import checkpoint, dist
from utils.config.common import Training
from utils.errors import Interrupted, UserError
from utils.log import log
from utils.meter import Meter, Progress
from utils.recipe import LATEST, Recipe
from utils.run import Run
from utils.step import NonFiniteLoss, build_optimizer, set_learning_rate, train_step

DRY_EPOCHS, DRY_STEPS = 2, 2
SHOWN_IDS = 24  # image ids per source in an error message


def fit(recipe: Recipe, settings: Training, run: Run) -> dict[str, Any]:
    """Train until the last epoch, from `run.resume_from` if set; return the metrics of the best and the last epoch.

    Without a score, only the last epoch counts. Raises Interrupted after a signal, with the state saved, and UserError
    if a loss is not finite, before the update.
    """
    epochs = DRY_EPOCHS if run.cfg.run.dry else settings.epochs
    run.saves_on_signal = True
    run.record_data()
    if dist.launched():
        torch.manual_seed(run.cfg.seed + dist.rank())  # equal initial weights, different dropout
    optimizer = build_optimizer(recipe.parameter_groups(), settings)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.amp_dtype() == torch.float16)
    progress = _resume(recipe, optimizer, scaler, run, run.resume_from) if run.resume_from else Progress()
    log.info("training from epoch %d, step %d; %s", progress.epoch, progress.step, _recipe_line(recipe, settings))
    while progress.epoch < epochs:
        sources = recipe.sources(progress.epoch, run)
        length = _epoch_length(recipe, sources, settings, run)
        steps = range(progress.step_in_epoch, length)
        batches = zip(*(source.epoch(progress.epoch, steps) for source in sources.values()), strict=True)
        recipe.model.train()
        meter = Meter(run, progress, length, epochs, images=settings.batch_size * len(sources))
        for parts in meter.timed(batches, len(steps)):
            meter.rate = set_learning_rate(optimizer, settings, progress.epoch, progress.step, length * epochs)
            batch = dict(zip(sources, parts, strict=True))
            losses = _step(recipe, batch, sources, optimizer, scaler, settings, progress, run)
            stop = dist.any_rank(run.stop_requested)[0]
            progress.step_in_epoch += 1
            progress.step += 1
            meter.report(losses, settings.log_every)
            if settings.eval_steps and progress.step % settings.eval_steps == 0:  # before a stop can skip it
                dist.broadcast_buffers(recipe.model)
                _validate(recipe, progress, run)
            if stop:
                _save(recipe, optimizer, scaler, progress, run)
                raise Interrupted(f"stopped at step {progress.step}, saved; the same command continues")
            if settings.save_every and progress.step % settings.save_every == 0:
                _save(recipe, optimizer, scaler, progress, run)
        _end_epoch(recipe, optimizer, scaler, progress, epochs, settings, run, meter)
    if recipe.score is None:
        return {**progress.last, "epoch": progress.epoch, "checkpoint": run.last.name}
    if not run.best.exists():  # resumed after the last epoch from another run's file
        _validate(recipe, progress, run)
        dist.barrier()
    best = checkpoint.load(run.best)
    return {**best["metrics"], "epoch": best["epoch"], "checkpoint": run.best.name, "last": progress.last}


def _step(
    recipe, batch, sources, optimizer, scaler, settings: Training, progress: Progress, run: Run
) -> dict[str, torch.Tensor]:
    """train_step with the settings of the run; names the images of the batch if a loss is not finite."""
    try:
        return train_step(
            recipe,
            batch,
            optimizer,
            scaler,
            epoch=progress.epoch,
            parts=settings.accumulate,
            clip_norm=settings.clip_norm,
            autocast=run.autocast(),
        )
    except NonFiniteLoss as error:
        raise UserError(
            f"the loss is not finite at step {progress.step + 1} ({error.losses}); stopped before the update, "
            f"{run.last} is intact; try a smaller learning rate or amp=off{_images(batch, sources)}"
        ) from None


def _images(batch: Mapping[str, dict], sources: Mapping[str, Any]) -> str:
    """Image ids of this process's batch, by source, for the error message."""
    found = {name: sources[name].ids(part["index"].tolist()) for name, part in batch.items() if "index" in part}
    shown = (
        f"{name} {', '.join(ids[:SHOWN_IDS])}{' ...' if len(ids) > SHOWN_IDS else ''}" for name, ids in found.items()
    )
    return f"; its images: {'; '.join(shown)}" if found else ""


def _end_epoch(recipe, optimizer, scaler, progress, epochs, settings, run, meter) -> None:
    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
    dist.broadcast_buffers(recipe.model)
    scores: dict[str, float] = {}
    if not settings.eval_steps and (progress.epoch % settings.eval_every == 0 or progress.epoch == epochs):
        scores = _validate(recipe, progress, run)
    meter.end_of_epoch(scores)
    if settings.keep_every and progress.epoch % settings.keep_every == 0:
        _save_network(run.dir / f"epoch_{progress.epoch}.pth", run, recipe, progress, progress.last if scores else {})
    _save(recipe, optimizer, scaler, progress, run)


def _validate(recipe, progress: Progress, run: Run) -> dict[str, float]:
    progress.last = recipe.evaluate(run)
    scores = _headline(progress.last)
    run.record(progress.step, {"epoch": progress.epoch, "val": scores})
    if recipe.score is None:
        return scores
    # the score is missing if validation has none of these classes and evaluation.absent=skip
    score = float(progress.step) if recipe.score == LATEST else scores.get(recipe.score, 0.0)
    if score > progress.best_score:
        progress.best_score = score
        _save_network(run.best, run, recipe, progress, progress.last)
    return scores


def _save(recipe, optimizer, scaler, progress: Progress, run: Run) -> None:
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
        if recipe.score is None:  # last.pth is the result
            state["classes"] = recipe.output_classes(progress.last)
        checkpoint.save(run.last, state, keep=run.previous)
    dist.barrier()


def _save_network(path: Path, run: Run, recipe, progress: Progress, metrics: dict[str, Any]) -> None:
    """Save what evaluation and export need, without the training state."""
    if dist.is_main():
        state = {
            "model": recipe.model.state_dict(),
            "metrics": metrics,
            "epoch": progress.epoch,
            "classes": recipe.output_classes(progress.last),
            "config": run.cfg.model_dump(mode="json"),
        }
        checkpoint.save(path, state)


def _resume(recipe, optimizer, scaler, run: Run, path: Path) -> Progress:
    path, state = _load_last(run) if path == run.last else (path, checkpoint.load(path))
    try:
        recipe.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        _require_fitting_momentum(optimizer)
        scaler.load_state_dict(state["scaler"])
        recipe.load_state(state["recipe"])
        progress = Progress(**state["progress"])
        _set_random_state(state["random"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: does not fit this run ({reason}); resume=false starts over") from None
    if not _whole_best(run):  # for example, resumed from another run's file: its best model is not here
        progress.best_score = float("-inf")
    run.restore_history(state["history"])
    log.info("resumed from step %d", progress.step)
    return progress


def _load_last(run: Run) -> tuple[Path, dict[str, Any]]:
    """Load last.pth; if it is damaged, warn and load the checkpoint before it. UserError if both are damaged."""
    try:
        return run.last, checkpoint.load(run.last)
    except UserError as error:
        if not run.previous.exists():
            raise
        log.warning("warning: %s; continuing from the previous checkpoint %s", error, run.previous.name)
    try:
        return run.previous, checkpoint.load(run.previous)
    except UserError as error:
        raise UserError(f"{error}, and {run.last.name} is damaged, too; resume=false starts over") from None


def _whole_best(run: Run) -> bool:
    """Whether best.pth exists and can be read. A damaged one is removed with a warning, at the start of training."""
    if not run.best.exists():
        return False
    try:
        checkpoint.load(run.best)
        found = True
    except UserError as error:
        log.warning("warning: %s; removed; the best of the remaining epochs will be saved", error)
        found = False
    dist.barrier()  # all processes have read it
    if not found and dist.is_main():
        run.best.unlink(missing_ok=True)
    dist.barrier()
    return found


def _require_fitting_momentum(optimizer: torch.optim.Optimizer) -> None:
    """ValueError if the state belongs to other parameters; torch compares only their number and would fail later."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                found = f"{name} of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}"
                raise ValueError(f"{found}: other parts were trained")


def _random_state() -> dict[str, torch.Tensor]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else torch.empty(0, dtype=torch.uint8)
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(states: list[dict[str, torch.Tensor]]) -> None:
    if len(states) != dist.world_size():
        return  # other number of processes: everything continues except the random states
    own = states[dist.rank()]
    torch.set_rng_state(own["cpu"])
    if torch.cuda.is_available() and len(own["cuda"]):
        torch.cuda.set_rng_state(own["cuda"])


def _epoch_length(recipe: Recipe, sources: Mapping[str, Any], settings: Training, run: Run) -> int:
    """Steps per epoch: as configured, otherwise one pass over the shortest source."""
    if run.cfg.run.dry:
        return DRY_STEPS
    shortest = min(sources, key=lambda name: sources[name].steps_per_pass)
    length = settings.iters_per_epoch or sources[shortest].steps_per_pass
    shares = dist.world_size() * settings.accumulate
    if settings.batch_size < recipe.smallest_batch * shares:
        raise UserError(
            f"batch_size={settings.batch_size}: less than {recipe.smallest_batch} images for each of "
            f"{dist.world_size()} processes and {settings.accumulate} parts; raise it"
        )
    if settings.accumulate > 1 and settings.batch_size % shares:
        raise UserError(
            f"accumulate={settings.accumulate}: batch_size={settings.batch_size} cannot be divided evenly among "
            f"{dist.world_size()} processes and {settings.accumulate} parts"
        )
    if not length:
        raise UserError(
            f"batch_size={settings.batch_size} is larger than the '{shortest}' image list; use a smaller one"
        )
    return length


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.endswith("miou") and v is not None}


def _recipe_line(recipe: Recipe, settings: Training) -> str:
    counts = {group["name"]: sum(p.numel() for p in group["params"]) / 1e6 for group in recipe.parameter_groups()}
    trained = ", ".join(f"{name} {count:.2f} M" for name, count in counts.items())
    share = settings.batch_size / dist.world_size()
    parts = f", {share / settings.accumulate:g} at a time" if settings.accumulate > 1 else ""
    synchronized = any(isinstance(module, nn.SyncBatchNorm) for module in recipe.model.modules())
    statistics = "synchronised" if synchronized else "of each process"
    images = f"{share:g} images per process and source of {settings.batch_size} in all{parts}"
    return f"trained parameters: {trained}; {images}; BatchNorm statistics {statistics}"
