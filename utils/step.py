"""One optimiser step of any recipe; its optimiser and learning-rate schedule."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from utils import dist
from utils.config.common import Training
from utils.errors import UserError
from utils.recipe import Recipe
from utils.schedules import poly_factor, poly_rate, step_factor, warm_poly_rate


class NonFiniteLoss(UserError):
    """A loss is NaN or infinite. Weights are unchanged; `losses` lists the values."""

    def __init__(self, losses: str):
        super().__init__(f"the loss is not finite ({losses}); stopped before the update")
        self.losses = losses


def train_step(
    recipe: Recipe,
    batch: dict[str, dict],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    *,
    epoch: int = 0,
    parts: int = 1,
    clip_norm: float | None = None,
    autocast: contextlib.AbstractContextManager | None = None,
) -> dict[str, torch.Tensor]:
    """Run one optimiser step; return the recipe's losses and their sum `loss`, without gradient.

    batch: name of a source -> tensors by field, on any device; "image" is uint8, or float and normalised. With
    `parts` > 1 the batch is cut along its images, gradients accumulate, and losses are means over the parts. Needs no
    data set, run folder or launch. Raises NonFiniteLoss before the update. On a GPU this check waits for the forward
    pass only, while the backward pass is running.
    """
    device = next(recipe.model.parameters()).device
    batch = {name: _to_device(part, device, recipe.on_host) for name, part in batch.items()}
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    recipe.before_step()
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for number, part in enumerate(_parts(batch, parts), start=1):
        last = number == parts
        with contextlib.nullcontext() if last else dist.no_sync(recipe.parallel_step):
            with autocast or contextlib.nullcontext():
                losses = {name: loss / parts for name, loss in recipe.parallel_step(part, epoch).items()}
                total = torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()
            sums = {name: loss.detach() + sums.get(name, 0) for name, loss in {**losses, "loss": total}.items()}
            if last:
                all_finite = _all_finite(torch.stack(list(sums.values())))
            scaler.scale(total).backward()
    if dist.any_rank(not all_finite())[0]:
        named = ", ".join(f"{name}={value.item():.4g}" for name, value in sums.items() if name != "loss")
        raise NonFiniteLoss(named)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if clip_norm:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return sums


def build_optimizer(groups: Sequence[dict[str, Any]], settings: Training) -> torch.optim.Optimizer:
    """SGD or AdamW over parameter groups. Each group stores its initial learning rate as `base_lr`."""
    listed = [{**group, "base_lr": group["lr"]} for group in groups]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        listed,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: Training, epoch: int, step: int, total: int) -> float:
    """Set the learning rates for optimiser step `step` of `total`; return that of the first group."""
    rates: Callable[[float], float] = {
        "step": lambda rate: rate * step_factor(epoch, settings.milestones, settings.lr_decay),
        "poly_epochs": lambda rate: rate * poly_factor(epoch / settings.epochs),
        "poly_steps": lambda rate: poly_rate(rate, step, total),
        "poly_to_zero": lambda rate: poly_rate(rate, step, total, floor=0.0),
        "warm_poly_steps": lambda rate: warm_poly_rate(rate, step, total),
    }[settings.schedule]
    for group in optimizer.param_groups:
        group["lr"] = rates(group["base_lr"])
    return optimizer.param_groups[0]["lr"]


def _all_finite(values: torch.Tensor) -> Callable[[], bool]:
    """Test on the device whether all values are finite. The returned function waits for this result only."""
    finite = values.isfinite().all().to("cpu", non_blocking=True)
    copied = torch.cuda.Event() if values.is_cuda else None
    if copied:
        copied.record()

    def result() -> bool:
        if copied:
            copied.synchronize()
        return bool(finite)

    return result


def _parts(batch: dict[str, dict], count: int) -> list[dict[str, dict]]:
    """Cut the batch into `count` equal parts along its images."""
    if count == 1:
        return [batch]
    return [
        {name: {key: values[i::count] for key, values in source.items()} for name, source in batch.items()}
        for i in range(count)
    ]


def _to_device(batch: dict, device: torch.device, on_host: frozenset[str]) -> dict:
    moved = {name for name, values in batch.items() if torch.is_tensor(values)} - on_host
    return {name: v.to(device, non_blocking=True) if name in moved else v for name, v in batch.items()}
