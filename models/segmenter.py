"""A checkpoint of any system, ours or official, as one kind of thing: a network that labels pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.contrast import SALIENT, load_encoder
from models.deeplab import build_model
from models.deeplab_files import load_deeplab, read_deeplab
from models.incremental import StepWeights, load_incremental, predicted_ids
from models.output import Output
from models.probes import load_probe
from models.weights import WeightsFile, read_weights
from utils.config.common import Common
from utils.config.reader import find_system, validate
from utils.config.systems import SCHEMAS
from utils.errors import UserError
from utils.measure.confusion import respond
from utils.resize import resize_shorter, resize_square


@dataclass(frozen=True)
class Segmenter:
    """B batch, H W pixels. Outputs are what `decide` can give: 0 .. num_outputs - 1."""

    path: Path
    model: nn.Module
    decide: Callable[[Output], torch.Tensor]  # the winning output of each pixel, [B, H, W]
    resize: Callable[[np.ndarray], np.ndarray]  # image uint8 [H, W, 3] -> network input, as in the evaluation
    num_outputs: int
    classes: list[tuple[int, str]]  # class number in the masks and name of the first outputs, all that the file knows
    num_known: int  # outputs of labelled classes, background included; those behind are discovered
    flavour: str  # whose file it is
    heads: tuple[int, ...] = ()  # outputs of each head, of the network of a step

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W], uint8 or float, already normalised -> outputs [B, H, W]."""
        return self.decide(respond(self.model, images))


def load_segmenter(source: Path | WeightsFile, config: Common | None = None) -> Segmenter:
    """The network of a checkpoint, by `config`, or, without one, by the configuration that the file holds.

    Raises UserError for a file without a configuration, and for one that does not fit it.
    """
    file = read_weights(source)
    if config is None:
        saved = file.extra.get("config")
        if not isinstance(saved, dict):
            cure = f"python eval.py CONFIG checkpoint={file.path} makes a model.pth that does"
            raise UserError(f"{file.path}: does not know its settings and the classes of its outputs; {cure}")
        config = read_config(saved, file.path)
    return LOADERS[config.system](file, config)


def read_config(saved: dict[str, Any], path: Path) -> Common:
    """The configuration in a checkpoint: what describes the network, by the schema of its system."""
    schema = SCHEMAS[find_system(saved, str(path))]
    return validate({name: saved[name] for name in schema.network if name in saved}, str(path), schema)


def load_ncdss(file: WeightsFile, config: Any) -> Segmenter:
    """A network of the discovery chain; it sees the image as a square. Of teacher and student the student."""
    weights = read_deeplab(file)
    model = build_model(config.model.model_copy(update={"init": "random"}), weights.num_classes)
    load_deeplab(model, file)
    return _square(file, model, config, weights.num_classes, weights.flavour)


def load_linear(file: WeightsFile, config: Any) -> Segmenter:
    """A linear probe; it sees the image as a square."""
    weights = read_deeplab(file)
    model = load_probe(config, file, weights.num_classes)
    return _square(file, model, config, weights.num_classes, f"linear probe, {weights.flavour}")


def load_step(file: WeightsFile, config: Any) -> Segmenter:
    """A class-incremental network; it sees the image with its shorter side as in the evaluation."""
    weights = StepWeights.read(file)
    model, loss = load_incremental(config.model, weights), "ce" if weights.linear else config.ssul.loss
    outputs = sum(weights.heads) - weights.unknown  # the unknown one counts for background
    resize = partial(resize_shorter, size=config.data.image_size, divisor=model.backbone.divisor)
    flavour = "official MiB or PLOP" if weights.in_place_abn else "heads of steps"

    def decide(output: Output) -> torch.Tensor:
        return predicted_ids(output.logits, weights.unknown, loss)

    return Segmenter(file.path, model, decide, resize, outputs, *_classes(file, outputs), flavour, weights.heads)


def load_saliency(file: WeightsFile, config: Any) -> Segmenter:
    """The saliency head of a MaskContrast encoder: background and object."""
    model, resize = load_encoder(config.model, file), partial(resize_square, "image", size=config.data.image_size)
    classes = [(0, "background"), (1, "object")]

    def decide(output: Output) -> torch.Tensor:
        return (output.logits[:, 0] > SALIENT).long()

    return Segmenter(file.path, model, decide, resize, len(classes), classes, len(classes), "MaskContrast encoder")


LOADERS: dict[str, Callable[[WeightsFile, Any], Segmenter]] = {
    "ncdss": load_ncdss,
    "ssul": load_step,
    "maskcontrast": load_saliency,
    "probe": load_linear,
}


def _square(file: WeightsFile, model: nn.Module, config: Any, outputs: int, flavour: str) -> Segmenter:
    resize = partial(resize_square, "image", size=config.data.image_size)

    def decide(output: Output) -> torch.Tensor:
        return output.logits.argmax(1)

    return Segmenter(file.path, model, decide, resize, outputs, *_classes(file, outputs), flavour)


def _classes(file: WeightsFile, outputs: int) -> tuple[list[tuple[int, str]], int]:
    """(number and name of the class of each output that the file knows; how many outputs were labelled)."""
    classes = [(int(number), str(name)) for number, name in file.extra.get("classes", [])]
    discovered = len(file.extra.get("metrics", {}).get("match", []))
    return classes, outputs - discovered if len(classes) == outputs else outputs
