"""Dilated ResNets (He et al., CVPR 2016) from torchvision's layers, under torchvision's key names.

Torchvision is imported when a network is built, because importing it takes more than a second.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from models.trunks.base import Backbone
from utils.errors import UserError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class ResNet(Backbone):
    """A ResNet without its classifier. image [B, 3, H, W] -> features [B, D, H/stride, W/stride]."""

    trained = ("layer3", "layer4")
    pixel_mean = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    pixel_std = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, name: str, output_stride: int):
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise UserError(f"model.output_stride={output_stride}: a ResNet has 8, 16 or 32")
        from torchvision import models

        full = models.get_model(name, weights=None)
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, part, getattr(full, part))
        self.channels = tuple(full.fc.in_features // narrower for narrower in (8, 4, 2, 1))
        if output_stride == 8:
            dilate(self.layer3, before=1, dilation=2)
            dilate(self.layer4, before=2, dilation=4)
        elif output_stride == 16:
            dilate(self.layer4, before=1, dilation=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.levels(image)[-1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of the four stages."""
        x, outputs = self.maxpool(self.relu(self.bn1(self.conv1(image)))), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            outputs.append(x)
        return outputs

    def taps(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        levels, sums = [self.maxpool(self.relu(self.bn1(self.conv1(image))))], []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            sums.append(before_activation(layer[-1], layer[:-1](levels[-1])))
            levels.append(sums[-1].relu())
        return levels[1:], sums


def before_activation(block: Any, x: torch.Tensor) -> torch.Tensor:
    """The output of a residual block of torchvision before its last activation."""
    identity = x if block.downsample is None else block.downsample(x)
    out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
    if hasattr(block, "conv3"):
        out = block.bn3(block.conv3(block.relu(out)))
    return out + identity


def dilate(layer: nn.Sequential, before: int, dilation: int) -> None:
    """Replaces the stride of a stage by dilation.

    The convolution that had the stride gets the dilation of the stage before, later ones the new dilation. Every second
    output then equals that of the strided stage. Same rule as torchvision's `replace_stride_with_dilation`, which
    supports bottleneck blocks only.
    """
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            rate = before if module.stride == (2, 2) else dilation
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (rate, rate)


def use_multi_grid(backbone: ResNet, output_stride: int, rates: Sequence[int]) -> None:
    """Dilations of the official ZS3Net code (multi-grid of DeepLabV3, Chen et al., 2017, sec. 3.3).

    In a dilated stage all blocks have the dilation of the stage, the first one too; in the last stage block i has
    `rates[i]` times that.
    """
    if output_stride == 8:
        set_dilation(backbone.layer3, [2] * len(backbone.layer3))
    last = {8: 4, 16: 2, 32: 1}[output_stride]
    set_dilation(backbone.layer4, [last * rate for rate in rates[: len(backbone.layer4)]])


def set_dilation(stage: nn.Sequential, rates: Sequence[int]) -> None:
    """Set the dilation of the 3x3 convolutions of each block."""
    for block, rate in zip(stage, rates, strict=True):
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (rate, rate)
