"""Checkpoints of every step of ZS3Net, ours or official, as segmenters that can be extended by new classes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from models.segmentation import SegmentationNet, build_network
from models.segmentation_files import LAST
from models.segmenter import Segmenter, saved_classes
from models.weights import WeightsFile
from models.zeroshot.files import load_zero_shot_network, read_zero_shot
from models.zeroshot.generators import DeviseNet, holds_generator, read_generator
from models.zeroshot.new_classes import add_classes
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.measure.protocol import most_likely
from utils.resize import resize_shorter


def load_zero_shot(file: WeightsFile, config: ZeroShotConfig) -> Segmenter:
    """The network of any step, ours or official; with a generator it can be extended by classes of any name."""
    weights, vectors = read_zero_shot(file), file.state.get("vectors")
    network = build_network(config.model, len(weights.state[LAST]), init="random")
    load_zero_shot_network(network, weights)
    model: DeviseNet | SegmentationNet = network
    outputs, flavour = network.classifier.out_channels, "zero-shot"
    devise = vectors is not None and not holds_generator(file)
    if vectors is not None and devise:
        model, outputs, flavour = DeviseNet(network, vectors), len(vectors), "word vectors"
    resize = partial(resize_shorter, size=config.evaluation.size)
    made = Segmenter(file.path, model, most_likely, resize, outputs, *saved_classes(file, outputs), flavour)

    def extend(
        names: list[str], new: torch.Tensor, known: torch.Tensor, generator_file: Path | None = None
    ) -> Segmenter:
        if vectors is not None and not (vectors.shape == known.shape and torch.allclose(vectors, known, atol=1e-5)):
            raise UserError(
                f"{file.path}: trained with other word vectors of its classes than those that are given; new classes "
                "need vectors from the same source (--embeddings, data.embeddings)"
            )
        generator = read_generator(generator_file or config.generator_checkpoint or file)
        add_classes(network, generator, known, new, config.zs3.noise)
        classes = named_behind(made.classes, names)
        return replace(made, num_outputs=outputs + len(new), classes=classes, num_known=outputs)

    return replace(made, extend=None if devise else extend)


def named_behind(classes: list[tuple[int, str]], names: list[str]) -> list[tuple[int, str]]:
    """Appends new classes with the next free numbers; without known classes the list stays empty."""
    first = 1 + max((number for number, _ in classes), default=-1)
    return [*classes, *enumerate(names, first)] if classes else []
