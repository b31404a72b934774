"""Checkpoints of class-incremental networks, ours or official, as segmenters."""

from functools import partial

import torch

from models.incremental.files import StepWeights, load_incremental
from models.incremental.scores import predicted_ids
from models.output import Output
from models.segmenter import Segmenter, saved_classes
from models.weights import WeightsFile
from utils.config.incremental import IncrementalConfig
from utils.resize import resize_shorter


def load_step(file: WeightsFile, config: IncrementalConfig) -> Segmenter:
    """The network of a step; its input is resized to the shorter side of the evaluation."""
    weights = StepWeights.read(file)
    model, loss = load_incremental(config.model, weights), "ce" if weights.linear else config.ssul.loss
    outputs = sum(weights.heads) - weights.unknown  # the unknown class counts for background
    resize = partial(resize_shorter, size=config.data.image_size, divisor=model.backbone.divisor)
    flavour = "official MiB or PLOP" if weights.in_place_abn else "heads of steps"

    def decide(output: Output) -> torch.Tensor:
        return predicted_ids(output.logits, weights.unknown, loss)

    return Segmenter(file.path, model, decide, resize, outputs, *saved_classes(file, outputs), flavour, weights.heads)
