"""Weights files of any origin: safe reading, and strict loading with a one-line error."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.pickled_weights import is_pickle, read_pickle
from utils.checkpoint import sha256
from utils.errors import UserError
from utils.log import log
from utils.ranks import is_main
from utils.torch_file import read_torch

# keys under which programs keep their tensors
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net", "ema", "teacher")
COUNTER = "num_batches_tracked"  # of BatchNorm; missing in the files of some programs


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by key, without wrapper and without the prefix `module.`, and the other content of the file."""

    path: Path
    state: dict[str, torch.Tensor]
    extra: dict[str, Any] = field(default_factory=dict)  # in our files: classes, config, metrics, epoch

    def starts(self) -> str:
        """The first parts of the keys, for error messages."""
        return ", ".join(sorted({key.split(".")[0] for key in self.state})[:5]) or "nothing"


def read_weights(source: Path | WeightsFile) -> WeightsFile:
    """The tensors of a file, unwrapped; a WeightsFile is returned as it is.

    Raises UserError if the file is unreadable or damaged, or holds no tensors or non-finite values.
    """
    if isinstance(source, WeightsFile):
        return source
    content = read_pickle(source) if is_pickle(source) else read_torch(source)
    if not isinstance(content, dict):
        raise UserError(f"{source}: holds a {type(content).__name__}, not a dictionary of weights")
    extra: dict[str, Any] = {}
    found = ", ".join(map(str, list(content)[:8])) or "none"
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            extra |= {key: value for key, value in content.items() if key != wrapper}
            content = content[wrapper]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
    if not tensors:
        raise UserError(f"{source}: no weights in it; its keys are {found}, known ones {', '.join(WRAPPERS)}")
    require_finite(tensors, source)
    if "format" not in extra:
        _tell_origin(source.resolve())
    return WeightsFile(source, {key.removeprefix("module."): value for key, value in tensors.items()}, extra)


@cache
def _tell_origin(path: Path) -> None:
    """Logs the sha256 of a file that this project did not write, once; docs/model_zoo.md lists known ones."""
    line = f"{path.name}: not written here, sha256 {sha256(path)}"
    if log.handlers:
        log.info(line)
    elif is_main():
        print(line)


def require_finite(state: dict[str, torch.Tensor], path: Path) -> None:
    """Raises UserError if a weight is infinite or NaN, as after a diverged training."""
    for key, value in state.items():
        # the sum needs one pass and no copy; it may overflow although all values are finite
        if value.is_floating_point() and not value.float().sum().isfinite() and not value.isfinite().all():
            count = int((~value.isfinite()).sum())
            raise UserError(f"{path}: {key} holds {count} values that are not finite; the training has diverged")


def load_strict(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    source: Path | str,
    cure: str = "check section model",
    leave: Iterable[str] = (),
) -> None:
    """Loads a state dict into a module; keys and shapes must be equal.

    Keys of the module that begin with one of `leave` keep their values. Raises UserError that names the file, the first
    missing, surplus or misshapen key with both shapes, the number of tensors that fit, and the `cure`.
    """
    leave = tuple(leave)
    own = {key: value for key, value in module.state_dict().items() if not (leave and key.startswith(leave))}
    problem = misfit(own, state)
    if problem:
        raise UserError(f"{source}: does not fit the network ({problem}); {cure}")
    module.load_state_dict(state, strict=not leave)


def misfit(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str | None:
    """The first difference of two state dicts in names or shapes; None if there is none."""
    fitting = sum(key in state and state[key].shape == value.shape for key, value in own.items())
    share = f"{fitting} of {len(own)} tensors fit"
    for key, value in own.items():
        if key not in state:
            if not key.endswith(COUNTER):
                return f"{share}: {key} is missing there"
        elif state[key].shape != value.shape:
            return f"{share}: {key} has shape {tuple(state[key].shape)} there, {tuple(value.shape)} here"
    surplus = sorted(state.keys() - own.keys())
    return f"{share}: {surplus[0]} is not in this network" if surplus else None
