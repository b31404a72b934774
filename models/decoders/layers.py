"""Layers that decoders share. B batch, D channels, h w feature cells."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn_relu(in_channels: int, out_channels: int, size: int = 1, rate: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the resolution, BatchNorm, ReLU."""
    padding = rate * (size // 2)
    convolution = nn.Conv2d(in_channels, out_channels, size, padding=padding, dilation=rate, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


class ImagePooling(nn.Sequential):
    """Mean over all cells, then a 1x1 convolution: [B, in_channels, h, w] -> [B, out_channels, h, w], all cells equal.

    `expand` repeats the value as it is; otherwise bilinear interpolation does, with its rounding.
    """

    def __init__(self, in_channels: int, out_channels: int, expand: bool):
        super().__init__(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(in_channels, out_channels))
        self.expand = expand

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, size = super().forward(x), x.shape[-2:]
        if self.expand:
            return pooled.expand(-1, -1, *size)
        return F.interpolate(pooled, size=size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017, fig. 5): [B, in_channels, h, w] -> [B, out_channels, h, w].

    Key names and values are those of torchvision's ASPP, whose dropout is left to the decoder. Importing torchvision
    takes longer than importing torch. With `expand` (ZS3Net) the image pooling is the first branch that is computed,
    which sets the order in which the gradients of `x` are summed.
    """

    def __init__(self, in_channels: int, rates: Sequence[int], out_channels: int, expand: bool = False):
        super().__init__()
        branches = [nn.Sequential(*conv_bn_relu(in_channels, out_channels))]
        branches += [nn.Sequential(*conv_bn_relu(in_channels, out_channels, 3, rate)) for rate in rates]
        self.convs = nn.ModuleList([*branches, ImagePooling(in_channels, out_channels, expand)])
        self.project = nn.Sequential(*conv_bn_relu(len(self.convs) * out_channels, out_channels))
        self.pool_first = expand

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *branches, pooling = self.convs
        if self.pool_first:
            pooled = pooling(x)
            return self.project(torch.cat([*(branch(x) for branch in branches), pooled], dim=1))
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))


def upsample(values: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
    """Bilinear interpolation of [B, D, h, w] to `size`."""
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=align_corners)


def kaiming_normal(modules: Iterable[nn.Module]) -> None:
    """Kaiming-normal weights (fan-in, ReLU) of all convolutions; biases keep torch's default."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
