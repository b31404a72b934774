"""Checkpoints of the discovery chain, ours or official, as segmenters."""

from models.segmentation import build_network
from models.segmentation_files import load_network, read_network
from models.segmenter import Segmenter, square_segmenter
from models.weights import WeightsFile
from utils.config.discovery import DiscoveryConfig


def load_ncdss(file: WeightsFile, config: DiscoveryConfig) -> Segmenter:
    """A network whose input is resized to a square; of a teacher-student file, the student."""
    weights = read_network(file)
    model = build_network(config.model, weights.num_classes, init="random")
    load_network(model, file)
    return square_segmenter(file, model, config, weights.num_classes, weights.flavour)
