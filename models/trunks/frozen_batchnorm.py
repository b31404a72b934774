"""BatchNorm whose statistics and affine weights never change (detectron2's and torchvision's FrozenBatchNorm2d)."""

from typing import Any

import torch
from torch import nn


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm as a fixed affine map under torchvision's key names: statistics and weights are buffers."""

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((num_features,), value))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # only BatchNorm has it
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def freeze_batchnorm(module: nn.Module) -> None:
    """Replaces all BatchNorm layers of a module by fixed affine maps with the same values."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_batchnorm(child)
