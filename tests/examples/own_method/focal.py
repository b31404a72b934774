"""The focal loss (Lin et al., ICCV 2017, Eq. 4, without alpha): pixels that are already right weigh little."""

import torch
import torch.nn.functional as F

from utils.labels import ignore_of


def focal_loss(logits: torch.Tensor, label: torch.Tensor, gamma: float) -> torch.Tensor:
    """Mean of (1 - p)^gamma * -log p over the labelled pixels, p the probability of the true class.

    logits [B, C, H, W]; label [B, H, W]. 0 with zero gradients when no pixel is labelled.
    """
    ignored = ignore_of(label)
    cross_entropy = F.cross_entropy(logits.float(), label.long(), ignore_index=ignored, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).sum() / (label != ignored).sum().clamp(min=1)
