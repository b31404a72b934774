"""Pixel-wise cross-entropy."""

import torch
import torch.nn.functional as F

from utils.labels import ignore_of


def cross_entropy(
    logits: torch.Tensor, label: torch.Tensor, ignore_index: int | None = None, pixels: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of -log softmax(logits)[label] over the labelled pixels; 0 with zero gradients when there are none.

    logits [B, C, H, W]; label [B, H, W] uint8, int64 or, for more than 255 classes, int32 (utils.labels). `pixels`
    replaces the number to divide by (a batch spread over processes divides by their mean). The official code returns
    NaN for a batch without labelled pixels.
    """
    ignore_index = ignore_of(label) if ignore_index is None else ignore_index
    label = label.long().flatten()
    per_pixel = logits.float().movedim(1, -1).flatten(0, -2)  # [BHW, C], no copy when the logits are channels-last
    total = F.cross_entropy(per_pixel, label, ignore_index=ignore_index, reduction="sum")
    count = (label != ignore_index).sum() if pixels is None else pixels
    return total / torch.where(count > 0, count, 1)  # a mean over processes may lie below 1
