"""Floating-point operations of a training step, as torch counts them: convolutions and matrix products, both passes.

    python -m benchmarks.flops train_base.py configs/demo/discovery.yaml base_training.batch_size=2

runs the script with run.dry=true (two epochs of two steps, no finished stage is touched) and prints the operations of
the first step of each recipe, in total and per image. They grow with the number of images, so that a small batch on a
CPU is enough. Hours on a GPU follow from steps * operations / (peak * share): about 40 % of the peak in bf16 is usual
for these networks. Time of memory-bound operations (BatchNorm, up-sampling) comes on top.
"""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.errors import UserError
from utils.recipe import Recipe
from utils.report.tables import table
from utils.run import guarded
from utils.step import train_step

HEADING = ["recipe", "images of a step", "GFLOP/step", "GFLOP/image"]


def count(step: Callable[[], Any]) -> int:
    """Floating-point operations of a call, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


class CountedSteps:
    """`train_step` that counts the operations of the first step of each recipe."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, int]] = {}  # recipe -> images, operations

    def __call__(self, recipe: Recipe, batch: dict[str, dict], *given: Any, **options: Any) -> dict[str, torch.Tensor]:
        name, losses = type(recipe).__name__, dict[str, torch.Tensor]()
        if name in self.rows:
            return train_step(recipe, batch, *given, **options)
        operations = count(lambda: losses.update(train_step(recipe, batch, *given, **options)))
        self.rows[name] = sum(images_of(part) for part in batch.values()), operations
        return losses

    def table(self) -> list[list[str]]:
        """Heading and a row per recipe."""
        lines = ((name, n, flops / 1e9) for name, (n, flops) in self.rows.items())
        return [HEADING, *([name, f"{n}", f"{giga:.1f}", f"{giga / n:.1f}"] for name, n, giga in lines)]


def images_of(part: dict[str, Any]) -> int:
    """Images in a source's part of a batch; several views of an image count as one."""
    return max(len(values) for values in part.values() if torch.is_tensor(values))


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    module, steps = words[0].removesuffix(".py"), CountedSteps()
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{words[0]}: no such training script; e.g. train_base.py")
    with patch("utils.loop.train_step", steps):
        status = guarded(importlib.import_module(module).main, [*words[1:], "run.dry=true"])
    print(table(steps.table()) if steps.rows else f"{words[0]} took no training step")
    return status


if __name__ == "__main__":
    raise SystemExit(guarded(main, sys.argv[1:]))
