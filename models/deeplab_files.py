"""Weights files of DeepLabV3: ours, the official NCDSS ones and torchvision's, recognised by their keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from models.deeplab import build_model
from models.segmenter import Segmenter, square_segmenter
from models.weights import WeightsFile, load_strict, read_weights
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError

LAST = "classifier.4.weight"  # [C, D, 1, 1]: tells the number of outputs
Tensors = dict[str, torch.Tensor]
Which = Literal["student", "teacher"]


@dataclass(frozen=True)
class DeepLabWeights:
    """State dict of one DeepLabV3 under its own keys, where it came from, and what else the file held."""

    path: Path
    state: Tensors
    flavour: str
    extra: dict[str, Any]

    @property
    def num_classes(self) -> int:
        return len(self.state[LAST])


def read_deeplab(source: Path | WeightsFile, which: Which = "student") -> DeepLabWeights:
    """From a checkpoint of this project, an official one (base, basic, EUMS, wrapped or not) or torchvision's.

    `which` picks the network of a teacher-student file. Raises UserError for anything else.
    """
    file = read_weights(source)
    flavour, state = rename(file.state, which)
    foreign = next((key for key in state if not key.startswith(("backbone.", "classifier."))), None)
    if LAST not in state or foreign:  # foreign: a MaskContrast encoder looks like student and teacher otherwise
        problem = f"no known segmentation weights (its keys begin with {file.starts()})"
        raise UserError(f"{file.path}: {problem}; model.init=FILE takes the weights of a backbone")
    return DeepLabWeights(file.path, state, flavour, file.extra)


def load_deeplab(
    model: nn.Module,
    source: Path | WeightsFile,
    *,
    which: Which = "student",
    only: str = "",
    other_classes: bool = False,
) -> DeepLabWeights:
    """Load a file into a DeepLabV3, strictly; `only="backbone"` leaves the decoder as it is.

    With `other_classes` the last layer stays as it is when the file has another number of outputs.
    Raises UserError that names the file and what does not fit.
    """
    weights, own = read_deeplab(source, which), len(model.state_dict()[LAST])
    state = {key: value for key, value in weights.state.items() if key.startswith(only)}
    leave = ("classifier.",) if only == "backbone" else ()
    if weights.num_classes != own and not only:
        if not other_classes:
            counts = f"has {weights.num_classes} outputs, this run needs {own}"
            raise UserError(f"{weights.path}: {counts}; check split and cluster.k")
        leave, state = ("classifier.4.",), {k: v for k, v in state.items() if not k.startswith("classifier.4.")}
    load_strict(model, state, weights.path, leave=leave)
    return weights


def read_networks(source: Path | WeightsFile) -> dict[str, Tensors]:
    """State dicts of all networks in a file: "student", and "teacher" where it holds both."""
    file = read_weights(source)
    student = read_deeplab(file)
    if "teacher-student" not in student.flavour:
        return {"student": student.state}
    return {"student": student.state, "teacher": read_deeplab(file, "teacher").state}


def to_official(networks: dict[str, Tensors]) -> Tensors:
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


def rename(state: Tensors, which: Which = "student") -> tuple[str, Tensors]:
    """(where the file is from, its tensors under DeepLabV3's keys)."""
    if any(k.startswith("student.") for k in state):
        return "teacher-student", _strip(state, f"{which}.")
    if any(k.startswith("model_q.") for k in state):
        inner = _strip(state, {"student": "model_q.", "teacher": "model_k."}[which])
        inner = {k.replace("decoder.", "classifier.", 1): v for k, v in inner.items()}
        return "official teacher-student", {k.replace("head.", "classifier.4.", 1): v for k, v in inner.items()}
    if any(k.startswith("decoder.") for k in state):
        return "official", {k.replace("decoder.", "classifier.", 1): v for k, v in state.items()}
    return "deeplab", {k: v for k, v in state.items() if not k.startswith("aux_classifier.")}


def _strip(state: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def load_ncdss(file: WeightsFile, config: DiscoveryConfig) -> Segmenter:
    """A network of the discovery chain; it sees the image as a square. Of teacher and student the student."""
    weights = read_deeplab(file)
    model = build_model(config.model.model_copy(update={"init": "random"}), weights.num_classes)
    load_deeplab(model, file)
    return square_segmenter(file, model, config, weights.num_classes, weights.flavour)
