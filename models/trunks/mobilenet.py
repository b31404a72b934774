"""Dilated MobileNetV2 (Sandler et al., CVPR 2018) from torchvision's blocks, padded as in the official SSUL code."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.trunks.base import Backbone
from utils.errors import UserError

LOW_LEVEL = 4  # blocks up to stride 4
LEVEL_ENDS = (LOW_LEVEL, 7, 14, 18)  # number of blocks up to strides 4, 8, 16 and 32


class PaddedBlock(nn.Module):
    """An inverted residual block of torchvision, with its key names, that pads its input before the expansion."""

    def __init__(self, block: Any):
        super().__init__()
        self.conv, self.use_res_connect = block.conv, block.use_res_connect

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rate = next(m.dilation[0] for m in self.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
        out = self.conv(F.pad(x, [rate] * 4))
        return x + out if self.use_res_connect else out


class MobileNetV2(Backbone):
    """image [B, 3, H, W] -> features [B, 320, H/stride, W/stride].

    The first convolution has no padding. A block pads its input, so its expansion also processes the zero border.
    """

    trained = tuple(f"high_level_features.{block}" for block in range(7, 18))  # behind stride 8
    channels = (24, 32, 96, 320)
    pixel_mean = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    pixel_std = (0.229 * 255, 0.224 * 255, 0.225 * 255)

    def __init__(self, output_stride: int):
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise UserError(f"model.output_stride={output_stride}: a MobileNetV2 has 8, 16 or 32")
        from torchvision.models import mobilenet_v2  # takes more than a second

        stem, *inverted, _wide = mobilenet_v2(weights=None).features  # the last layer serves the classifier only
        blocks = nn.Sequential(stem, *map(PaddedBlock, inverted))
        dilate(blocks, output_stride)
        self.low_level_features, self.high_level_features = blocks[:LOW_LEVEL], blocks[LOW_LEVEL:]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.high_level_features(self.low_level_features(image))

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of the last blocks at strides 4, 8, 16 and 32."""
        levels = [self.low_level_features(image)]
        for first, last in zip(LEVEL_ENDS, LEVEL_ENDS[1:], strict=False):
            levels.append(self.high_level_features[first - LOW_LEVEL : last - LOW_LEVEL](levels[-1]))
        return levels


def dilate(blocks: nn.Sequential, output_stride: int) -> None:
    """Replaces strides beyond `output_stride` by dilation, and removes the padding of every convolution."""
    stride, rate = 1, 1
    for block in blocks:
        for conv in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
            conv.padding = (0, 0)
            if conv.kernel_size != (3, 3):
                continue
            conv.dilation = (rate, rate)  # the block that had the stride keeps the rate before it
            if conv.stride == (2, 2) and stride == output_stride:
                conv.stride, rate = (1, 1), 2 * rate
            else:
                stride *= conv.stride[0]
