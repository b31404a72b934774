"""Weights files, ours and the published ones, recognised by their keys and renamed to DeepLabV3's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from utils.errors import UserError

LAST = "classifier.4.weight"  # [C, D, 1, 1]: tells the number of outputs
# a numpy scalar (the best IoU) lies inside the official checkpoint.pth.tar, written with numpy 1
MAKE_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_SCALAR = [
    (MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64)),
]


@dataclass(frozen=True)
class Weights:
    """State dict of one DeepLabV3, where it came from, and what else the file held."""

    state: dict[str, torch.Tensor]
    flavour: str
    num_classes: int
    extra: dict


def read_weights(path: Path, which: Literal["student", "teacher"] = "student") -> Weights:
    """Read a checkpoint of this project, an official NCDSS one (base, basic, EUMS, wrapped or not) or torchvision's.

    `which` picks the network of a teacher-student file. Raises UserError for anything else.
    """
    content = load_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    extra = {k: v for k, v in content.items() if k != "model"} if isinstance(content.get("model"), dict) else {}
    state = content["model"] if extra or isinstance(content.get("model"), dict) else content
    state = {k.removeprefix("module."): v for k, v in state.items() if isinstance(k, str) and torch.is_tensor(v)}
    flavour, state = _rename(state, which)
    if LAST not in state:
        found = ", ".join(sorted({k.split(".")[0] for k in state})[:5]) or "nothing"
        hint = "model.init=FILE takes the weights of a backbone"
        raise UserError(f"{path}: no known segmentation weights (its keys begin with {found}); {hint}")
    return Weights(state, flavour, len(state[LAST]), extra)


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    which: Literal["student", "teacher"] = "student",
    only: str = "",
    other_classes: bool = False,
) -> Weights:
    """Load a weights file into a DeepLabV3, strictly; `only="backbone"` leaves the decoder as it is.

    With `other_classes` the last layer stays as it is when the file has another number of outputs.
    Raises UserError that names the file and what does not fit.
    """
    weights = read_weights(path, which)
    own = {k: v for k, v in model.state_dict().items() if k.startswith(only)}
    state = {k: v for k, v in weights.state.items() if k.startswith(only)}
    if other_classes and weights.num_classes != len(own[LAST]):
        own, state = ({k: v for k, v in d.items() if not k.startswith("classifier.4.")} for d in (own, state))
    if own.keys() != state.keys():
        absent = sorted(own.keys() - state.keys()) or sorted(state.keys() - own.keys())
        raise UserError(f"{path}: made for another network ({absent[0]} differs); check the keys of section model")
    for key, value in own.items():
        if state[key].shape != value.shape:
            if key.startswith("classifier.4"):
                counts = f"has {weights.num_classes} outputs, this run needs {len(own[LAST])}"
                raise UserError(f"{path}: {counts}; check split and cluster.k")
            shapes = f"{key} has shape {tuple(state[key].shape)}, this network {tuple(value.shape)}"
            raise UserError(f"{path}: {shapes}; check section model")
    model.load_state_dict(state, strict=not only and not other_classes)
    return weights


def read_networks(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """State dicts of all networks in a weights file: "student", and "teacher" where it holds both."""
    student = read_weights(path)
    if "teacher-student" not in student.flavour:
        return {"student": student.state}
    return {"student": student.state, "teacher": read_weights(path, "teacher").state}


def to_official(networks: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Under the key names of the official checkpoints, so that their scripts read our weights.

    One network gives a base or basic checkpoint, student and teacher an EUMS one.
    """
    renamed = {
        name: {k.replace("classifier.", "decoder.", 1): v for k, v in state.items()} for name, state in networks.items()
    }
    if "teacher" not in networks:
        return renamed["student"]
    state = {
        f"{prefix}.{key.replace('decoder.4.', 'head.')}": value
        for name, prefix in (("student", "model_q"), ("teacher", "model_k"))
        for key, value in renamed[name].items()
    }
    queue = torch.zeros(networks["student"][LAST].shape[1], 128)  # a buffer that their code never uses
    return state | {"queue": queue}


def _rename(state: dict[str, torch.Tensor], which: str) -> tuple[str, dict[str, torch.Tensor]]:
    if any(k.startswith("student.") for k in state):
        return "teacher-student", _strip(state, f"{which}.")
    if any(k.startswith("model_q.") for k in state):
        inner = _strip(state, {"student": "model_q.", "teacher": "model_k."}[which])
        inner = {k.replace("decoder.", "classifier.", 1): v for k, v in inner.items()}
        return "official teacher-student", {k.replace("head.", "classifier.4.", 1): v for k, v in inner.items()}
    if any(k.startswith("decoder.") for k in state):
        return "official", {k.replace("decoder.", "classifier.", 1): v for k, v in state.items()}
    return "deeplab", {k: v for k, v in state.items() if not k.startswith("aux_classifier.")}


def _strip(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


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
