"""DeepLabV3+ (Chen et al., ECCV 2018): ASPP on the last level, joined with the features at stride 4.

ZS3Net and SSUL build it differently, so there are two classes. B batch, D decoder width, h w cells at stride 4.
"""

from collections.abc import Sequence

import torch
from torch import nn

from models.decoders.base import Decoder
from models.decoders.layers import ASPP, conv_bn_relu, upsample

LOW_CHANNELS = 48  # of the reduced features at stride 4, in all official programs
LATER_DROPOUT = 5  # the second dropout of ZS3Net's decoder is 0.1, the first 0.5


class DeepLabV3Plus(Decoder):
    """As in the official ZS3Net code: two 3x3 convolutions follow the join, each with BatchNorm, ReLU and dropout.

    The features are not negative. Up-sampling aligns corners.
    """

    align_corners = True

    def __init__(
        self,
        channels: Sequence[int],
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        dropout: float = 0.5,
        low_channels: int = LOW_CHANNELS,
    ):
        super().__init__()
        self.out_channels = width
        self.aspp, self.dropout = ASPP(channels[-1], rates, width, expand=True), nn.Dropout(dropout)
        self.low = nn.Sequential(*conv_bn_relu(channels[0], low_channels))
        self.refine = nn.Sequential(
            *conv_bn_relu(width + low_channels, width, 3),
            nn.Dropout(dropout),
            *conv_bn_relu(width, width, 3),
            nn.Dropout(dropout / LATER_DROPOUT),
        )

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self.aspp(levels[-1]), self.low(levels[0])]

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        aspp, low = parts
        return self.refine(torch.cat([upsample(aspp, low.shape[-2:], self.align_corners), low], dim=1))


class HeadlessDeepLabV3Plus(Decoder):
    """As in the official SSUL code: the join alone, width + low_channels channels; every head has a 3x3 convolution."""

    def __init__(
        self,
        channels: Sequence[int],
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        dropout: float = 0.1,
        low_channels: int = LOW_CHANNELS,
    ):
        super().__init__()
        self.out_channels = width + low_channels
        self.low = nn.Sequential(*conv_bn_relu(channels[0], low_channels))
        self.aspp, self.dropout = ASPP(channels[-1], rates, width), nn.Dropout(dropout)

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self.aspp(levels[-1]), self.low(levels[0])]

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        aspp, low = parts
        return torch.cat([low, upsample(aspp, low.shape[-2:])], dim=1)
