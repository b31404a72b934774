"""The network of supervised segmentation, and the loader of its checkpoints."""

from models.segmentation import build_network
from models.segmentation_files import LAST
from models.segmenter import Segmenter, square_segmenter
from models.weights import WeightsFile, load_strict

from .config import SupervisedConfig


def load_supervised(file: WeightsFile, config: SupervisedConfig) -> Segmenter:
    """Load a checkpoint of train_supervised.py. Raises UserError if it does not fit section `model`."""
    last = file.state.get(LAST, ())
    model = build_network(config.model, len(last), init="random")
    load_strict(model, file.state, file.path)
    return square_segmenter(file, model, config, len(last), "supervised")
