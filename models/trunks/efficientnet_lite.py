"""EfficientNet-Lite0 (Tan & Le, ICML 2019; Lite: no squeeze-excite, ReLU6) at output stride 8, 16 or 32.

Key names are those of the public PyTorch weights without the leading underscores. TensorFlow "same" padding.

A stage whose stride is removed needs dilated convolutions after it. They are computed as plain convolutions on the 2x2
interleaved phases of the feature map, moved into the batch. The sums are the same, because a convolution of dilation 2
never mixes phases; on CPUs, which have no fast kernel for dilated depthwise convolutions, this is twice as fast.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.trunks.base import Backbone
from utils.errors import UserError

#        repeat, kernel, stride, expansion, in, out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
NUM_BLOCKS = sum(stage[0] for stage in STAGES)
STAGE_ENDS = (2, 4, 10, 15)  # the last blocks at strides 4, 8, 16 and 32


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow "same" padding: with a stride, the odd pixel is added at the bottom and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (left, right), (top, bottom) = (self._padding(x.shape[-1], 1), self._padding(x.shape[-2], 0))
        if left == right and top == bottom:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: 1x1 expand, depthwise, 1x1 project."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int, splits: bool):
        super().__init__()
        width = inputs * expansion
        self.splits = splits  # its stride was removed: later blocks run on the phases of its output
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = SameConv2d(inputs, width, 1, bias=False)
            self.bn0 = batch_norm(width)
        self.depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width, bias=False)
        self.bn1 = batch_norm(width)
        self.project_conv = SameConv2d(width, outputs, 1, bias=False)
        self.bn2 = batch_norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)), inplace=True)
        y = self.bn2(self.project_conv(y))
        return x + y if x.shape == y.shape else y


def split_phases(x: torch.Tensor) -> torch.Tensor:
    """[B, D, h, w] -> [4B, D, h/2, w/2]: even and odd rows and columns, separately."""
    return torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def join_phases(x: torch.Tensor) -> torch.Tensor:
    """The inverse of split_phases."""
    rows = [torch.stack(pair, dim=-1).flatten(-2) for pair in (x.chunk(4)[:2], x.chunk(4)[2:])]
    return torch.stack(rows, dim=-2).flatten(-3, -2)


class EfficientNetLite0(Backbone):
    """image [B, 3, H, W] -> features [B, 320, H/stride, W/stride]."""

    divisor = 32
    pixel_mean = (127.0, 127.0, 127.0)
    pixel_std = (128.0, 128.0, 128.0)
    channels = (24, 40, 112, 320)
    trained = tuple(f"blocks.{i}" for i in range(5, NUM_BLOCKS))  # behind stride 8, as a ResNet's layer3 and layer4

    def __init__(self, output_stride: int = 8):
        super().__init__()
        self.conv_stem = SameConv2d(3, STAGES[0][4], 3, 2, bias=False)
        self.bn0 = batch_norm(STAGES[0][4])
        blocks, reached = [], 2
        for repeat, kernel, stride, expansion, inputs, outputs in STAGES:
            splits = stride == 2 and reached == output_stride
            stride = 1 if splits else stride
            reached *= stride
            blocks.append(Block(kernel, stride, expansion, inputs, outputs, splits))
            blocks += [Block(kernel, 1, expansion, outputs, outputs, False) for _ in range(repeat - 1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self._run(image, (NUM_BLOCKS - 1,))[-1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self._run(image, STAGE_ENDS)

    def _run(self, image: torch.Tensor, wanted: tuple[int, ...]) -> list[torch.Tensor]:
        """Outputs of the wanted blocks."""
        height, width = image.shape[-2:]
        if height % self.divisor or width % self.divisor:
            raise UserError(f"data.image_size: efficientnet_lite0 needs multiples of 32, got {width}x{height}")
        x, splits, outputs = F.relu6(self.bn0(self.conv_stem(image)), inplace=True), 0, []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if block.splits:
                x, splits = split_phases(x), splits + 1
            if index in wanted:
                whole = x
                for _ in range(splits):
                    whole = join_phases(whole)
                outputs.append(whole)
        return outputs
