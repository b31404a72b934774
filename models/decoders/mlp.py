"""A light decoder over all levels: the all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021).

DINOv2's multi-level linear head is the same without the fusion. B batch, D decoder width, h w cells at stride 4.
"""

from collections.abc import Sequence

import torch
from torch import nn

from models.decoders.base import Decoder
from models.decoders.layers import conv_bn_relu, upsample


class MlpDecoder(Decoder):
    """1x1 convolution per level, up-sampling to the finest, concatenation, 1x1 convolution, BatchNorm, ReLU, dropout.

    M = dropout(relu(bn(W [up(W_1 F_1 + b_1), ..., up(W_4 F_4 + b_4)]))), eq. 4 of the paper up to its classifier.
    """

    def __init__(self, channels: Sequence[int], width: int = 128, dropout: float = 0.1):
        super().__init__()
        self.out_channels = width
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.fuse, self.dropout = nn.Sequential(*conv_bn_relu(len(channels) * width, width)), nn.Dropout(dropout)

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        size = levels[0].shape[-2:]
        reduced = [layer(level) for layer, level in zip(self.reduce, levels, strict=True)]
        return [self.fuse(torch.cat([upsample(level, size) for level in reduced], dim=1))]
