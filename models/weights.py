"""Weights files of any origin: read safely and once, loaded strictly, with one message for a misfit."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.pickled_weights import is_pickle, read_pickle
from utils.errors import UserError

WRAPPERS = ("state_dict", "model", "model_state")  # keys under which programs keep their tensors
COUNTER = "num_batches_tracked"  # of BatchNorm, which some programs leave out
# a numpy scalar (the best IoU) lies inside official checkpoints, written with numpy 1
MAKE_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_SCALAR: list[Any] = [
    (MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64)),
]


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by key, without a wrapper and without `module.`, and what else the file holds."""

    path: Path
    state: dict[str, torch.Tensor]
    extra: dict[str, Any] = field(default_factory=dict)  # of our own: classes, config, metrics, epoch

    def starts(self) -> str:
        """How its keys begin, for a message that a file is of another kind."""
        return ", ".join(sorted({key.split(".")[0] for key in self.state})[:5]) or "nothing"


def read_weights(source: Path | WeightsFile) -> WeightsFile:
    """The tensors of a file, unwrapped; a file that was read already comes back as it is. UserError in one line."""
    if isinstance(source, WeightsFile):
        return source
    content = read_pickle(source) if is_pickle(source) else load_file(source)
    if not isinstance(content, dict):
        raise UserError(f"{source}: holds a {type(content).__name__}, not a dictionary of weights")
    extra: dict[str, Any] = {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            extra |= {key: value for key, value in content.items() if key != wrapper}
            content = content[wrapper]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
    return WeightsFile(source, {key.removeprefix("module."): value for key, value in tensors.items()}, extra)


def load_file(path: Path) -> Any:
    """Content of a torch file on the CPU, without running code from it; UserError in one line."""
    try:
        with torch.serialization.safe_globals(NUMPY_SCALAR):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises several types for a damaged or unsafe file
        reason = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from None


def load_strict(
    module: nn.Module,
    state: dict[str, torch.Tensor],
    source: Path | str,
    cure: str = "check section model",
    leave: Iterable[str] = (),
) -> None:
    """Load a state dict into a module, key by key and shape by shape.

    Keys of the module that begin with one of `leave` keep their values. UserError that names the file, the first key
    that is missing, too many or of another shape, with both shapes, how many tensors fit, and the `cure`.
    """
    leave = tuple(leave)
    own = {key: value for key, value in module.state_dict().items() if not (leave and key.startswith(leave))}
    problem = misfit(own, state)
    if problem:
        raise UserError(f"{source}: does not fit the network ({problem}); {cure}")
    module.load_state_dict(state, strict=not leave)


def misfit(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str | None:
    """The first difference of two state dicts in names and shapes; None when there is none."""
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
