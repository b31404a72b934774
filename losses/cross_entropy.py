"""Pixel-wise softmax cross-entropy. B images, C classes, H W pixels."""

import torch
import torch.nn.functional as F

from utils.labels import ignore_of


def cross_entropy_plain(logits: torch.Tensor, label: torch.Tensor, ignore_index: int | None = None) -> torch.Tensor:
    """-sum_i log softmax(z_i)[y_i] / N over the N labelled pixels (Bishop, 2006, eq. 4.108, as a mean); 0 if N = 0.

    logits [B, C, H, W], label [B, H, W].
    """
    valid = label != (ignore_of(label) if ignore_index is None else ignore_index)
    own = torch.where(valid, label, 0).long()[:, None]
    nll = -logits.log_softmax(1).gather(1, own)[:, 0]
    return (nll * valid).sum() / valid.sum().clamp(min=1)


def cross_entropy(
    logits: torch.Tensor, label: torch.Tensor, ignore_index: int | None = None, pixels: torch.Tensor | None = None
) -> torch.Tensor:
    """`cross_entropy_plain` in float32, without a copy of channels-last logits.

    logits [B, C, H, W]; label [B, H, W] uint8, int64 or, with more than 255 classes, int32. `pixels` replaces N.
    """
    ignore_index = ignore_of(label) if ignore_index is None else ignore_index
    label = label.long().flatten()
    per_pixel = logits.float().movedim(1, -1).flatten(0, -2)  # [BHW, C]
    total = F.cross_entropy(per_pixel, label, ignore_index=ignore_index, reduction="sum")
    count = (label != ignore_index).sum() if pixels is None else pixels
    return total / torch.where(count > 0, count, 1)  # a mean over processes can lie below 1
