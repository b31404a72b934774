"""Parts of networks under torchvision's key names, with its values: importing it takes longer than torch itself.

B batch, D channels, h w feature cells.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def _convolution(in_channels: int, out_channels: int, size: int = 1, rate: int = 1) -> list[nn.Module]:
    padding = rate * (size // 2)
    convolution = nn.Conv2d(in_channels, out_channels, size, padding=padding, dilation=rate, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


class Pooled(nn.Sequential):
    """The mean over all cells through a convolution, at every cell again."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), *_convolution(in_channels, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(super().forward(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017, fig. 5): [B, in_channels, h, w] -> [B, out_channels, h, w]."""

    def __init__(self, in_channels: int, rates: Sequence[int], out_channels: int, dropout: float = 0.5):
        super().__init__()
        branches = [nn.Sequential(*_convolution(in_channels, out_channels))]
        branches += [nn.Sequential(*_convolution(in_channels, out_channels, 3, rate)) for rate in rates]
        self.convs = nn.ModuleList([*branches, Pooled(in_channels, out_channels)])
        self.project = nn.Sequential(*_convolution(len(self.convs) * out_channels, out_channels), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm as a fixed affine map: its statistics and weights are buffers, which nothing trains."""

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((num_features,), value))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # what a BatchNorm has besides
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]
