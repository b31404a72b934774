"""Weights files of SegmentationNet with a plain classifier: ours, the official NCDSS and EUMS ones, torchvision's.

Official names are renamed here, and nowhere else. C outputs, D decoder width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from models.segmentation import SegmentationNet
from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

LAST = "classifier.weight"  # [C, D, 1, 1]
DECODER, CLASSIFIER = "decoder.aspp.", "classifier."
STUDENT, TEACHER = "model_q.", "model_k."  # prefixes in official EUMS files
DEEPLABV3 = {"0.": DECODER, "1.": "decoder.refine.0.", "2.": "decoder.refine.1.", "4.": CLASSIFIER}
TORCHVISION = {f"classifier.{number}": ours for number, ours in DEEPLABV3.items()}
NCDSS = {f"decoder.{number}": ours for number, ours in DEEPLABV3.items()}
EUMS = {**NCDSS, "head.": CLASSIFIER}
Tensors = dict[str, torch.Tensor]
Which = Literal["student", "teacher"]


@dataclass(frozen=True)
class NetworkWeights:
    """State dict of one network under our keys, where it came from, and what else the file held."""

    path: Path
    state: Tensors
    flavour: str
    extra: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.state[LAST])


def read_network(source: Path | WeightsFile, which: Which = "student") -> NetworkWeights:
    """Reads a checkpoint of this project, an official one (base, basic, EUMS, wrapped or not) or torchvision's.

    `which` selects the network of a teacher-student file. Raises UserError for any other file.
    """
    file = read_weights(source)
    flavour, state = rename(file.state, which)
    if not is_network(state):
        problem = f"no known segmentation weights (its keys begin with {file.starts()})"
        raise UserError(f"{file.path}: {problem}; model.init=FILE takes the weights of a backbone")
    return NetworkWeights(file.path, state, flavour, file.extra)


def is_network(state: Tensors) -> bool:
    """Whether these tensors, under our keys, are of one network and nothing else.

    The two encoders of a MaskContrast file, too, look like student and teacher, but have a second head.
    """
    return LAST in state and all(key.startswith(("backbone.", "decoder.", CLASSIFIER)) for key in state)


def load_network(
    model: SegmentationNet[nn.Conv2d],
    source: Path | WeightsFile,
    *,
    which: Which = "student",
    only: str = "",
    other_classes: bool = False,
) -> NetworkWeights:
    """Loads a file into a network, strictly; `only="backbone"` leaves decoder and classifier as they are.

    With `other_classes` the classifier stays as it is if the file has another number of outputs.
    Raises UserError that names the file and the first tensor that does not fit.
    """
    weights, own = read_network(source, which), model.classifier.out_channels
    state = {key: value for key, value in weights.state.items() if key.startswith(only)}
    leave: tuple[str, ...] = ("decoder.", CLASSIFIER) if only == "backbone" else ()
    if weights.num_classes != own and not only:
        if not other_classes:
            counts = f"has {weights.num_classes} outputs, this run needs {own}"
            raise UserError(f"{weights.path}: {counts}; check split and cluster.k")
        leave, state = (CLASSIFIER,), {k: v for k, v in state.items() if not k.startswith(CLASSIFIER)}
    load_strict(model, state, weights.path, leave=leave)
    return weights


def read_networks(source: Path | WeightsFile) -> dict[str, Tensors]:
    """State dicts of all networks in a file: "student", and "teacher" if it holds both."""
    file = read_weights(source)
    student = read_network(file)
    if "teacher-student" not in student.flavour:
        return {"student": student.state}
    return {"student": student.state, "teacher": read_network(file, "teacher").state}


def rename(state: Tensors, which: Which = "student") -> tuple[str, Tensors]:
    """(origin of the file, its tensors under our keys)."""
    if any(key.startswith("student.") for key in state):
        return "teacher-student", strip(state, f"{which}.")
    if any(key.startswith(STUDENT) for key in state):
        return "official teacher-student", renamed(strip(state, {"student": STUDENT, "teacher": TEACHER}[which]), EUMS)
    if "decoder.4.weight" in state:
        return "official", renamed(state, NCDSS)
    if "classifier.4.weight" in state:
        return "torchvision", renamed({k: v for k, v in state.items() if not k.startswith("aux_")}, TORCHVISION)
    return "ours", state


def to_official(networks: dict[str, Tensors]) -> Tensors:
    """Tensors under the names of the official checkpoints, for the official scripts.

    One network gives a base or basic checkpoint; student and teacher give an EUMS one. Raises UserError if the decoder
    is not DeepLabV3.
    """
    require_deeplabv3(networks["student"])
    if "teacher" not in networks:
        return renamed(networks["student"], inverse(NCDSS))
    state = {
        f"{prefix}{key}": value
        for name, prefix in (("student", STUDENT), ("teacher", TEACHER))
        for key, value in renamed(networks[name], inverse(EUMS)).items()
    }
    queue = torch.zeros(networks["student"][LAST].shape[1], 128)  # a buffer that their code never uses
    return state | {"queue": queue}


def to_torchvision(state: Tensors) -> Tensors:
    """Tensors for torchvision's deeplabv3_resnet50(aux_loss=None). Raises UserError if the decoder is not DeepLabV3."""
    require_deeplabv3(state)
    return renamed(state, inverse(TORCHVISION))


def require_deeplabv3(state: Tensors) -> None:
    """Raises UserError for weights with another decoder: only DeepLabV3 has official names."""
    others = sorted({key.split(".")[1] for key in state if key.startswith("decoder.")} - {"aspp", "refine"})
    if others or f"{DECODER}project.0.weight" not in state:
        raise UserError("--to: official names exist for model.decoder=deeplabv3 only; use --to ours, or --format onnx")


def renamed(state: Tensors, names: Mapping[str, str]) -> Tensors:
    """Replaces the first prefix in `names` that a key begins with."""

    def rename_key(key: str) -> str:
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        return names.get(prefix, "") + key.removeprefix(prefix)

    return {rename_key(key): value for key, value in state.items()}


def inverse(names: Mapping[str, str]) -> dict[str, str]:
    """The table of the opposite direction; of two prefixes with one meaning the last one counts."""
    return {ours: theirs for theirs, ours in names.items()}


def strip(state: Tensors, prefix: str) -> Tensors:
    """The tensors whose key begins with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
