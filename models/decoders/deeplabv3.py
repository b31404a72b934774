"""DeepLabV3 (Chen et al., 2017). B batch, D decoder width, h w feature cells."""

from collections.abc import Sequence

import torch
from torch import nn

from models.decoders.base import Decoder
from models.decoders.layers import ASPP, conv_bn_relu


class DeepLabV3(Decoder):
    """ASPP on the last level, dropout, and a 3x3 convolution with BatchNorm and ReLU.

    Without `refine` the 3x3 convolution is left to the classifier, as in SSUL, where every head has its own.
    """

    all_levels = False

    def __init__(
        self,
        channels: Sequence[int],
        rates: Sequence[int] = (12, 24, 36),
        width: int = 256,
        dropout: float = 0.5,
        refine: bool = True,
    ):
        super().__init__()
        self.out_channels = width
        self.aspp, self.dropout = ASPP(channels[-1], rates, width), nn.Dropout(dropout)
        self.refine = nn.Sequential(*conv_bn_relu(width, width, 3)) if refine else nn.Identity()

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self.aspp(levels[-1])]

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.refine(parts[0])
