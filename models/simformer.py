"""What weak-shot training trains: a MaskFormer, and SimNet beside it when images come in pairs."""

from typing import Any

import torch
from torch import nn

from models.maskformer import MaskFormer, MaskOutput, build_maskformer
from models.simnet import SimNet


class WeakShotNet(nn.Module):
    """network.*, which segments, and simnet.*, which only training needs."""

    def __init__(self, network: MaskFormer, simnet: SimNet | None = None):
        super().__init__()
        self.network, self.simnet = network, simnet

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> MaskOutput:
        """Proposals for normalised images [B, 3, H, W]."""
        return self.network(image)


def build_weak_shot(cfg: Any, num_classes: int, pairs: bool = False, init: str | None = None) -> WeakShotNet:
    """By a `model` section, see build_maskformer; with SimNet when images come in `pairs`."""
    network = build_maskformer(cfg, num_classes, init)
    return WeakShotNet(network, SimNet(cfg.width, cfg.simnet_width, cfg.simnet_blocks) if pairs else None)
