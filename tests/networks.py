"""Small networks with random weights, for tests."""

from collections.abc import Sequence

from torch import nn

from models.incremental.network import IncrementalNet, build_incremental
from models.segmentation import SegmentationNet, build_network
from utils.config import discovery, incremental, zeroshot

SMALL = {"init": "random", "backbone": "resnet18", "atrous_rates": (1, 2), "head_channels": 8}


def discovery_network(num_classes: int, **keys) -> SegmentationNet[nn.Conv2d]:
    """A network of class discovery, by the keys of its `model` section."""
    return build_network(discovery.Model(**{**SMALL, **keys}), num_classes)


def zero_shot_network(num_classes: int, **keys) -> SegmentationNet[nn.Conv2d]:
    return build_network(zeroshot.Model(**{**SMALL, **keys}), num_classes)


def incremental_network(heads: Sequence[int], linear: bool = False, **keys) -> IncrementalNet:
    return build_incremental(incremental.Model(**{**SMALL, **keys}), heads, linear)
