"""The backbones by name."""

from collections.abc import Callable
from functools import partial

from models.trunks.base import Backbone
from models.trunks.efficientnet_lite import EfficientNetLite0
from models.trunks.imagenet import load_imagenet
from models.trunks.mobilenet import MobileNetV2
from models.trunks.resnet import RESNETS, ResNet

BACKBONES: dict[str, Callable[[int], Backbone]] = {
    **{name: partial(ResNet, name) for name in RESNETS},
    "efficientnet_lite0": EfficientNetLite0,
    "mobilenet_v2": MobileNetV2,
}


def build_backbone(name: str, output_stride: int, init: str) -> Backbone:
    """A backbone with weights: `init` is imagenet, random, or the path of a file."""
    backbone = BACKBONES[name](output_stride)
    if init != "random":
        load_imagenet(backbone, name, init)
    return backbone
