"""The systems by name: what makes a checkpoint, ours or official, a network that labels pixels."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.contrast.encoder import SALIENT, load_encoder
from models.contrast.probes import load_probe
from models.deeplab import build_model
from models.deeplab_files import load_deeplab, read_deeplab
from models.deeplab_plus import LAST, DeepLabPlus, build_deeplab_plus, load_deeplab_plus, network_file
from models.incremental.network import StepWeights, load_incremental, predicted_ids
from models.output import Output
from models.segmenter import Segmenter, saved_classes, square_segmenter
from models.weakshot.simformer import load_weak_shot
from models.weights import WeightsFile, read_weights
from models.zeroshot.generators import DeviseNet, holds_generator, read_generator
from models.zeroshot.new_classes import add_classes
from utils.config.common import Common
from utils.config.reader import find_system, validate
from utils.config.systems import SCHEMAS
from utils.errors import UserError
from utils.measure.protocol import most_likely
from utils.resize import resize_shorter, resize_square


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


def full_config(file: WeightsFile) -> Common:
    """The whole configuration that a checkpoint was made with; UserError for a file that holds none."""
    saved = file.extra.get("config")
    if not isinstance(saved, dict):
        raise UserError(f"{file.path}: does not know its settings; give a best.pth or model.pth of this project")
    return validate(saved, str(file.path), SCHEMAS[find_system(saved, str(file.path))])


def read_config(saved: dict[str, Any], path: Path) -> Common:
    """The configuration in a checkpoint: what describes the network, by the schema of its system."""
    schema = SCHEMAS[find_system(saved, str(path))]
    return validate({name: saved[name] for name in schema.network_by if name in saved}, str(path), schema)


def load_ncdss(file: WeightsFile, config: Any) -> Segmenter:
    """A network of the discovery chain; it sees the image as a square. Of teacher and student the student."""
    weights = read_deeplab(file)
    model = build_model(config.model.model_copy(update={"init": "random"}), weights.num_classes)
    load_deeplab(model, file)
    return square_segmenter(file, model, config, weights.num_classes, weights.flavour)


def load_linear(file: WeightsFile, config: Any) -> Segmenter:
    """A linear probe; it sees the image as a square."""
    weights = read_deeplab(file)
    model = load_probe(config, file, weights.num_classes)
    return square_segmenter(file, model, config, weights.num_classes, f"linear probe, {weights.flavour}")


def load_step(file: WeightsFile, config: Any) -> Segmenter:
    """A class-incremental network; it sees the image with its shorter side as in the evaluation."""
    weights = StepWeights.read(file)
    model, loss = load_incremental(config.model, weights), "ce" if weights.linear else config.ssul.loss
    outputs = sum(weights.heads) - weights.unknown  # the unknown one counts for background
    resize = partial(resize_shorter, size=config.data.image_size, divisor=model.backbone.divisor)
    flavour = "official MiB or PLOP" if weights.in_place_abn else "heads of steps"

    def decide(output: Output) -> torch.Tensor:
        return predicted_ids(output.logits, weights.unknown, loss)

    return Segmenter(file.path, model, decide, resize, outputs, *saved_classes(file, outputs), flavour, weights.heads)


def load_saliency(file: WeightsFile, config: Any) -> Segmenter:
    """The saliency head of a MaskContrast encoder: background and object."""
    model, resize = load_encoder(config.model, file), partial(resize_square, "image", size=config.data.image_size)
    classes = [(0, "background"), (1, "object")]

    def decide(output: Output) -> torch.Tensor:
        return (output.logits[:, 0] > SALIENT).long()

    return Segmenter(file.path, model, decide, resize, len(classes), classes, len(classes), "MaskContrast encoder")


def load_zero_shot(file: WeightsFile, config: Any) -> Segmenter:
    """The network of any step of ZS3, ours or official; with a generator it takes classes of any name."""
    weights, vectors = network_file(file), file.state.get("vectors")
    network = build_deeplab_plus(config.model, len(weights.state[LAST]), init="random")
    load_deeplab_plus(network, weights)
    model: DeviseNet | DeepLabPlus = network
    outputs, flavour = network.classifier.out_channels, "DeepLabV3+"
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
    """Classes of one's own get the numbers behind those of the masks; without known classes, none are."""
    first = 1 + max((number for number, _ in classes), default=-1)
    return [*classes, *enumerate(names, first)] if classes else []


LOADERS: dict[str, Callable[[WeightsFile, Any], Segmenter]] = {
    "ncdss": load_ncdss,
    "ssul": load_step,
    "maskcontrast": load_saliency,
    "probe": load_linear,
    "zs3": load_zero_shot,
    "simformer": load_weak_shot,
}
