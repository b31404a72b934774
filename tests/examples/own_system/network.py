"""The network of supervised segmentation, and how a checkpoint of it is read."""

from models.deeplab import DeepLabV3
from models.segmenter import Segmenter, square_segmenter
from models.trunks import build_backbone
from models.weights import WeightsFile, load_strict
from utils.config.common import DeepLab

from .config import SupervisedConfig


def build_network(cfg: DeepLab, num_classes: int, init: str) -> DeepLabV3:
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init)
    return DeepLabV3(backbone, num_classes, cfg.atrous_rates, cfg.head_channels, cfg.dropout)


def load_supervised(file: WeightsFile, config: SupervisedConfig) -> Segmenter:
    """A checkpoint of train_supervised.py; UserError when it does not fit section `model`."""
    last = file.state.get("classifier.4.weight", ())
    model = build_network(config.model, len(last), "random")
    load_strict(model, file.state, file.path)
    return square_segmenter(file, model, config, len(last), "supervised")
