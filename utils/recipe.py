"""Base class of all methods, as the training loop uses them."""

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from easydict import EasyDict
from torch import nn

from utils import dist
from utils.config.common import Common, Training
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol, most_likely
from utils.run import Run
from utils.systems import resolve

LATEST = "latest"  # value of `score` if no metric can select an epoch: best.pth is the last epoch


class Recipe(ABC):
    """A training method. `step` computes its losses; `score` names the validation metric that selects the best model.

    `model` holds all tensors of a checkpoint, `settings` the hyperparameters. `train_step` needs only these two. `fit`
    also needs `feed`, the data sources by name, and `protocol`, the validation. If `score` is None, the model of the
    last epoch is the result.
    """

    score: str | None
    own: EasyDict = EasyDict()  # section `own` of the configuration, if the key `recipe` names this class
    smallest_batch: int = 2  # images per process and accumulated part; BatchNorm of a pooled feature needs two
    unused_parameters: bool = False  # whether `step` may give no gradient to some trained parameters
    on_host: frozenset[str] = frozenset()  # batch fields that stay on the CPU because `step` reads their values

    def __init__(
        self,
        model: nn.Module,
        settings: Any,
        feed: Mapping[str, Any] | None = None,
        protocol: EvalProtocol | None = None,
    ):
        self.model, self.settings, self.protocol = model, settings, protocol
        self.feed: Mapping[str, Any] = feed or {}

    @property
    def network(self) -> nn.Module:
        """The network that is validated."""
        return self.model

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for torch.optim: `params`, initial `lr`, `name`, optionally `weight_decay`."""

    @cached_property
    def parallel_step(self) -> Callable[[dict[str, dict], int], dict[str, torch.Tensor]]:
        """`step`; with several processes, its backward pass averages gradients over them."""
        parameters = [parameter for group in self.parameter_groups() for parameter in group["params"]]
        return dist.data_parallel(self.step, parameters, find_unused=self.unused_parameters)

    @abstractmethod
    def step(self, batch: dict[str, dict], epoch: int) -> dict[str, torch.Tensor]:
        """Compute the losses, whose sum is minimised, and metrics without gradient, which are only reported.

        batch: name of the source -> tensors by field; "image" is uint8 [B, 3, H, W], or float and normalised.
        """

    def before_step(self) -> None:  # noqa: B027
        """Called once before each optimiser step, also with accumulation. A moving average of weights belongs here."""

    def sources(self, epoch: int, run: Run) -> Mapping[str, Any]:
        """Data sources (data.loading.Source) of this epoch, by name. Called at its start."""
        return self.feed

    def decide(self, output: Any) -> torch.Tensor:
        """Predicted output of each pixel, int64 [B, H, W], from what the network returns."""
        return most_likely(output)

    def evaluate(self, run: Run) -> dict[str, Any]:
        """Validation metrics, including `score`, equal on all processes. Empty without a protocol."""
        return self.protocol.score(self.network, run, self.decide) if self.protocol else {}

    def output_classes(self, metrics: dict[str, Any]) -> list[tuple[int, str]]:
        """Class number and name of each network output, saved with the model; [] if unknown."""
        return self.protocol.classes(metrics) if self.protocol else []

    def state(self) -> dict[str, Any]:
        """State for resuming in addition to model and optimiser, as plain values and tensors.

        A recipe with a second optimiser returns its state_dict here; a resumed run then equals an uninterrupted one.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore what `state` returned."""


def trainable(part: nn.Module) -> list[nn.Parameter]:
    """Parameters that require a gradient."""
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


class TwoParts(typing.Protocol):
    """A network that separates the parameters of decoder and backbone."""

    def decoder_parameters(self) -> list[nn.Parameter]: ...

    def backbone_parameters(self) -> list[nn.Parameter]: ...


def decoder_and_backbone(network: TwoParts, settings: Training) -> list[dict[str, Any]]:
    """Parameter groups of decoder and backbone with their learning rates."""
    return [
        {"name": "decoder", "params": network.decoder_parameters(), "lr": settings.lr},
        {
            "name": "backbone",
            "params": network.backbone_parameters(),
            "lr": settings.lr * settings.backbone_lr_factor,
        },
    ]


R = typing.TypeVar("R", bound=Recipe)
OWN_KEYS = ("recipe", "own")  # keys that a stage with an own recipe reads in addition


def own_recipe(cfg: Common, builtin: type[R]) -> type[R]:
    """The class that the key `recipe` names, with section `own` attached; `builtin` if the key is not set.

    Raises UserError if the class does not exist or is not a Recipe.
    """
    if cfg.recipe is None:
        return builtin
    module, name = cfg.recipe.split(":")
    try:
        found = resolve(cfg.recipe)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # an import inside the module
        cure = "start in the folder that holds it, or add that folder to PYTHONPATH"
        raise UserError(f"recipe={cfg.recipe}: no module '{error.name}'; {cure}") from None
    except AttributeError:
        raise UserError(f"recipe={cfg.recipe}: module '{module}' has no '{name}'") from None
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise UserError(f"recipe={cfg.recipe}: not a subclass of utils.recipe.Recipe")
    found.own = cfg.own
    return typing.cast(type[R], found)


def own_keys(cfg: Common) -> tuple[str, ...]:
    """Additional keys that change the result of a training stage: those of an own recipe, if there is one."""
    return OWN_KEYS if cfg.recipe else ()
