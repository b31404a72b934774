"""Weights files of MaskFormer and SimFormer: ours, and the official ones under either generation of names.

Official files are recognised by detectron2's key `backbone.stem.`. Files of the model zoo are older and have no
`pixel_decoder.` between the head and its layers; the official loader recognises them by metadata that may be missing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

Tensors = dict[str, torch.Tensor]
CLASSES, QUERIES = "class_embed.weight", "query_embed.weight"  # [K + 1, D] and [Q, D]
VECTORS = "class_embed.vectors"  # [K, E] instead of the former with model.classes=words
NETWORK, SIMNET = "network.", "simnet."  # where both lie in our checkpoints of weak-shot training
HEAD, PREDICTOR = "sem_seg_head.", "sem_seg_head.predictor."
OFFICIAL_SIMNET = "criterion.cro_pixel_sim_net."
STAGE = re.compile(r"res(\d)\.(\d+)\.(conv(\d)|shortcut)\.(norm\.)?(.*)")
STEM = "stem.conv1."


@dataclass(frozen=True)
class MaskFormerWeights:
    """State dicts of a MaskFormer and of its SimNet ({} if absent) under our keys, and what else the file held."""

    path: Path
    state: Tensors
    simnet: Tensors
    flavour: str
    extra: dict[str, Any]

    @property
    def num_classes(self) -> int:
        return count_classes(self.state)

    @property
    def vectors(self) -> torch.Tensor | None:
        """Word vectors [K, E] of the classes, if the network classifies by them."""
        return self.state.get(VECTORS)

    @property
    def queries(self) -> int:
        return len(self.state[QUERIES])


def read_maskformer(source: Path | WeightsFile) -> MaskFormerWeights:
    """Reads a checkpoint of ours, of SimFormer or of MaskFormer's model zoo. Raises UserError for any other file."""
    file = read_weights(source)
    official = any(key.startswith(f"backbone.{STEM}") for key in file.state)
    flavour, state, simnet = rename_official(file.state) if official else rename_own(file.state)
    if not {CLASSES, VECTORS} & state.keys() or QUERIES not in state:
        problem = f"no MaskFormer (its keys begin with {file.starts()})"
        raise UserError(f"{file.path}: {problem}; model.init=FILE takes the weights of a backbone")
    return MaskFormerWeights(file.path, state, simnet, flavour, file.extra)


def load_maskformer(model: nn.Module, source: Path | WeightsFile, *, other_classes: bool = False) -> MaskFormerWeights:
    """Loads a file into a MaskFormer, strictly.

    With `other_classes`, the class layer is not loaded if the file has other classes; of a class layer with word
    vectors, only the vectors are not. Raises UserError that names the file and what does not fit.
    """
    weights, own = read_maskformer(source), model.state_dict()
    classes, queries = count_classes(own), len(own[QUERIES])
    if weights.queries != queries:
        counts = f"has {weights.queries} queries, this network {queries}"
        raise UserError(f"{weights.path}: {counts}; set model.queries={weights.queries}")
    state, leave = weights.state, ""
    if weights.num_classes != classes:
        if not other_classes:
            counts = f"has {weights.num_classes} classes, this run needs {classes}"
            raise UserError(f"{weights.path}: {counts}; check data.dataset and split")
        leave = VECTORS if VECTORS in own and VECTORS in state else "class_embed."
        state = {key: value for key, value in state.items() if not key.startswith(leave)}
    load_strict(model, state, weights.path, leave=[leave] if leave else [])
    return weights


def count_classes(state: Tensors) -> int:
    """The number of classes K of a state dict."""
    return len(state[VECTORS]) if VECTORS in state else len(state[CLASSES]) - 1


def backbone_file(source: Path | WeightsFile) -> WeightsFile:
    """Weights of a backbone; detectron2's ImageNet files (R-50.pkl) get torchvision's names."""
    file = read_weights(source)
    if f"{STEM}weight" not in file.state:
        return file
    return WeightsFile(file.path, rename_backbone(file.state), file.extra)


def rename_own(state: Tensors) -> tuple[str, Tensors, Tensors]:
    """(flavour, network, SimNet) of a file of ours: a network, or a network and its SimNet."""
    simnet = strip(state, SIMNET)
    return "MaskFormer", strip(state, NETWORK) or state, simnet


def rename_official(state: Tensors) -> tuple[str, Tensors, Tensors]:
    """(flavour, network, SimNet) of an official file, under our keys."""
    head = strip(state, HEAD)
    zoo = any(key.startswith("layer_1.") for key in head)
    pixels = head if zoo else strip(head, "pixel_decoder.")
    network = {f"backbone.{key}": value for key, value in rename_backbone(strip(state, "backbone.")).items()}
    network |= {f"pixel_decoder.{key}": value for key, value in pixels.items() if not key.startswith("predictor.")}
    for key, value in strip(state, PREDICTOR).items():
        network[key.removeprefix("transformer.")] = value
    simnet = strip(state, OFFICIAL_SIMNET)
    renamed = {  # 1x1 convolutions there
        key.replace("fc_branch.layers.block", "blocks."): value.flatten(1) if value.dim() == 4 else value
        for key, value in simnet.items()
    }
    return ("MaskFormer model zoo" if zoo else "official SimFormer"), network, renamed


def rename_backbone(state: Tensors) -> Tensors:
    """Torchvision's names for a ResNet of detectron2 (stem.conv1, res2 to res5), without its classifier."""
    renamed = {}
    for key, value in state.items():
        if key.startswith(STEM):
            layer = "bn1" if ".norm." in key else "conv1"
            renamed[f"{layer}.{key.rpartition('.')[2]}"] = value
        elif match := STAGE.fullmatch(key):
            stage, block, _, number, norm, name = match.groups()
            part = (f"bn{number}" if norm else f"conv{number}") if number else f"downsample.{1 if norm else 0}"
            renamed[f"layer{int(stage) - 1}.{block}.{part}.{name}"] = value
        elif "fc." not in key:
            renamed[key] = value
    return renamed


def strip(state: Tensors, prefix: str) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
