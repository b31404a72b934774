"""A checkpoint of any system, ours or official, as a Segmenter: a network that labels pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.output import Output
from models.weights import WeightsFile, read_weights
from utils.channels import largest
from utils.checkpoint import read_json
from utils.cluster_names import OF, cluster_classes, read_cluster_names
from utils.config.common import Common
from utils.config.reader import find_system, validate
from utils.errors import UserError
from utils.measure.confusion import respond
from utils.resize import resize_square
from utils.systems import SYSTEMS, resolve, schema_of


def largest_probability(output: Output) -> torch.Tensor:
    """The largest softmax probability of each pixel, float [B, H, W]."""
    return output.logits.float().softmax(1).amax(1)


@dataclass(frozen=True)
class Segmenter:
    """B batch, H W pixels. `decide` returns outputs 0 .. num_outputs - 1."""

    path: Path
    model: nn.Module
    decide: Callable[..., torch.Tensor]  # the winning output of each pixel [B, H, W], see utils/measure/protocol.py
    resize: Callable[[np.ndarray], np.ndarray]  # image uint8 [H, W, 3] -> network input, as in the evaluation
    num_outputs: int
    classes: list[tuple[int, str]]  # class number in the masks and name of each output that the file knows
    num_known: int  # outputs of labelled classes, background included; later outputs are discovered clusters
    flavour: str  # origin of the file
    heads: tuple[int, ...] = ()  # outputs of each head, in class-incremental networks
    # (new names, their word vectors, those of the known classes, generator file or None) -> with these classes
    extend: Callable[..., "Segmenter"] | None = None
    certainty: Callable[..., torch.Tensor] = largest_probability  # network output -> confidence 0..1 [B, H, W]

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W], uint8, or float and already normalised -> outputs [B, H, W]."""
        return self.decide(respond(self.model, images))


def square_segmenter(file: WeightsFile, model: nn.Module, config: Common, outputs: int, flavour: str) -> Segmenter:
    """A network whose input is resized to a square of `data.image_size`; `decide` is the arg-max of the logits."""
    resize = partial(resize_square, "image", size=config.data.image_size)

    def decide(output: Output) -> torch.Tensor:
        return largest(output.logits)[1]

    return Segmenter(file.path, model, decide, resize, outputs, *saved_classes(file, outputs), flavour)


def saved_classes(file: WeightsFile, outputs: int) -> tuple[list[tuple[int, str]], int]:
    """(class number and name of each output that the file names; number of labelled outputs).

    Unnamed clusters take their names from clusters.yaml in the parent of the stage's folder, if it was written for the
    clustering that inputs.json of the stage records.
    """
    classes = [(int(number), str(name)) for number, name in file.extra.get("classes", [])]
    match = file.extra.get("metrics", {}).get("match", [])
    if len(classes) != outputs:
        return classes, outputs
    known = outputs - len(match)
    if not match or any(number >= 0 for _, number in match):
        return classes, known
    stage = file.path.resolve().parent
    inputs = read_json(stage / "inputs.json") if (stage / "inputs.json").is_file() else {}
    given = read_cluster_names(stage.parent, inputs.get(OF))
    if given:
        classes = classes[:known] + cluster_classes(classes[:known], len(match), given)
    return classes, known


def load_segmenter(source: Path | WeightsFile, config: Common | None = None) -> Segmenter:
    """Loads the network of a checkpoint, ours or official.

    `config` describes the network; by default, the configuration saved in the checkpoint does. Raises UserError if the
    file has no configuration and none is given, or if the weights do not fit.
    """
    file = read_weights(source)
    if config is None:
        saved = file.extra.get("config")
        if not isinstance(saved, dict):
            cure = f"python eval.py CONFIG checkpoint={file.path} writes a model.pth that does"
            raise UserError(f"{file.path}: holds neither settings nor the classes of its outputs; {cure}")
        config = read_config(saved, file.path)
    segmenter: Segmenter = resolve(SYSTEMS[config.system].segmenter)(file, config)
    return segmenter


def full_config(file: WeightsFile) -> Common:
    """The complete configuration that a checkpoint was trained with. Raises UserError if the file holds none."""
    saved = file.extra.get("config")
    if not isinstance(saved, dict):
        raise UserError(f"{file.path}: holds no settings; give a best.pth or model.pth of this project")
    return validate(saved, str(file.path), schema_of(find_system(saved, str(file.path))))


def read_config(saved: dict[str, Any], path: Path) -> Common:
    """The sections of a saved configuration that describe the network, validated by the schema of its system."""
    schema = schema_of(find_system(saved, str(path)))
    return validate({name: saved[name] for name in schema.network_by if name in saved}, str(path), schema)
