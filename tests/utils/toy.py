"""A toy recipe for the training loop, and ways to disturb it."""

import json
import os
import signal

import torch
from torch import nn

from utils import checkpoint, loop
from utils.config.reader import load_config
from utils.recipe import Recipe
from utils.run import Run, start_run


class ToySource:
    """Batches that depend on (epoch, step) alone, as those of data.loading.Source do."""

    steps_per_pass = 3

    def epoch(self, epoch: int, steps: range):
        for step in steps:
            draw = torch.Generator().manual_seed(100 * epoch + step)
            yield {"x": torch.randn(4, 2, generator=draw), "y": torch.randn(4, generator=draw)}


class ToyRecipe(Recipe):
    """A linear model; `scores` are the validation results in turn, `trouble(recipe, epoch)` is called in every step."""

    score = "miou"

    def __init__(self, scores=(), trouble=None):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1)), settings=None)
        self.scores, self.trouble, self.steps, self.factor = list(scores), trouble, 0, 1.0

    def parameter_groups(self):
        rate, factor = self.settings.lr, self.settings.backbone_lr_factor
        return [
            {"name": "decoder", "params": list(self.model[2].parameters()), "lr": rate},
            {"name": "backbone", "params": list(self.model[0].parameters()), "lr": rate * factor},
        ]

    def sources(self, epoch, run):
        return {"toy": ToySource()}

    def step(self, batch, epoch):
        self.steps += 1
        if self.trouble:
            self.trouble(self, epoch)
        toy = batch["toy"]
        return {"toy": self.factor * (self.model(toy["x"])[:, 0] - toy["y"]).square().mean()}

    def evaluate(self, run):
        score = self.scores.pop(0) if self.scores else float(self.model[2].weight.detach().sum())
        if isinstance(score, Exception):
            raise score
        return {"miou": score, "other": 1}

    def state(self):
        return {"note": "kept"}

    def load_state(self, state):
        assert state == {"note": "kept"}


def toy_fit(tiny, recipe, *overrides) -> tuple[dict, Run]:
    """Train a toy model in the run folder `toy`, as an entry script would."""
    settings = ("base_training={epochs: 3, iters_per_epoch: null, lr: 0.1, milestones: [0], log_every: 1}", *overrides)
    cfg = load_config([str(tiny), *settings], "")
    with start_run(cfg, "toy", ("base_training",), {}) as run:
        if run.finished:
            return checkpoint.read_json(run.dir / "metrics.json"), run
        recipe.settings = cfg.base_training
        metrics = loop.fit(recipe, cfg.base_training, run)
        run.finish(metrics)
    return metrics, run


def history(run_or_dir) -> list[dict]:
    folder = getattr(run_or_dir, "dir", run_or_dir)
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def at_step(number: int, action):
    """A `trouble` that acts in one step only."""
    return lambda recipe, epoch: action(recipe) if recipe.steps == number else None


def terminate(_recipe=None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash(_recipe=None) -> None:
    raise RuntimeError("crash")
