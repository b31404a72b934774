"""What a method is to the training loop: the base class of every recipe."""

import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from easydict import EasyDict
from torch import nn

from utils.config.common import Common, Training
from utils.errors import UserError
from utils.measure.protocol import EvalProtocol, most_likely
from utils.run import Run
from utils.systems import resolve

LATEST = "latest"  # as a score: nothing tells which epoch is best, so that best.pth is the last one


class Recipe(ABC):
    """A method: what one training step computes. `score` names the metric that picks the best model.

    `model` holds every tensor that a checkpoint keeps, `settings` the values of the method; with these two alone a
    training step can be made (`train_step`). `feed` are the sources that `fit` reads, by name, and `protocol` says how
    the model is validated. Without a score nothing is picked: the model of the last epoch is the result.
    """

    score: str | None
    own: EasyDict = EasyDict()  # section `own` of the configuration, for a recipe that the key `recipe` names
    smallest_batch: int = 2  # images of a process and part: BatchNorm of a pooled feature needs two values
    on_host: frozenset[str] = frozenset()  # fields that `step` reads as values: on the device it would wait for them

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
        """Trained parameters as torch.optim takes them: `params`, `lr` at the start, `name`, maybe `weight_decay`."""

    @abstractmethod
    def step(self, batch: dict[str, dict], epoch: int) -> dict[str, torch.Tensor]:
        """Losses whose sum is minimised, and metrics without gradient that are reported with them.

        batch: name of the source -> tensors by field; "image" is uint8 [B, 3, H, W], or float, already normalised.
        """

    def before_step(self) -> None:  # noqa: B027
        """Called once before each optimiser step, however many parts its batch has; a moving average goes here."""

    def sources(self, epoch: int, run: Run) -> Mapping[str, Any]:
        """Name -> data.loading.Source read in this epoch; called once at its start."""
        return self.feed

    def decide(self, output: Any) -> torch.Tensor:
        """The winning output of each pixel [B, H, W] of what the network returns."""
        return most_likely(output)

    def evaluate(self, run: Run) -> dict[str, Any]:
        """Validation metrics, `score` among them; the same on every process. Nothing without a protocol."""
        return self.protocol.score(self.network, run, self.decide) if self.protocol else {}

    def output_classes(self, metrics: dict[str, Any]) -> list[tuple[int, str]]:
        """Class number in the masks and name of each network output, to be saved with the best model; [] if unknown."""
        return self.protocol.classes(metrics) if self.protocol else []

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides model and optimizer, as plain values and tensors.

        A recipe with an optimiser of its own (a generator's) saves its state_dict here and takes it back in
        `load_state`: then a resumed run is equal to an undisturbed one.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what `state` gave."""


def trainable(part: nn.Module) -> list[nn.Parameter]:
    """Its parameters but for frozen ones."""
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


class TwoParts(typing.Protocol):
    """A network that tells its parameters apart."""

    def decoder_parameters(self) -> list[nn.Parameter]: ...

    def backbone_parameters(self) -> list[nn.Parameter]: ...


def decoder_and_backbone(network: TwoParts, settings: Training) -> list[dict[str, Any]]:
    """Parameter groups of both parts at their rates."""
    return [
        {"name": "decoder", "params": network.decoder_parameters(), "lr": settings.lr},
        {
            "name": "backbone",
            "params": network.backbone_parameters(),
            "lr": settings.lr * settings.backbone_lr_factor,
        },
    ]


R = typing.TypeVar("R", bound=Recipe)
OWN_KEYS = ("recipe", "own")  # what the stage of an own method reads besides the keys of the method it replaces


def own_recipe(cfg: Common, builtin: type[R]) -> type[R]:
    """The recipe class that the key `recipe` names, with `own` set; without the key, `builtin`.

    Raises UserError if there is no such class, or if it is not a Recipe.
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
    """Keys that decide the result of a training stage in addition to those of its method."""
    return OWN_KEYS if cfg.recipe else ()
