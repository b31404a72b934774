"""Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018): a loss that wrong labels pull at less."""

import torch

from utils.labels import IGNORE


def generalized_cross_entropy(logits: torch.Tensor, label: torch.Tensor, q: float) -> torch.Tensor:
    """Mean of (1 - p^q) / q over the labelled pixels, p the probability of the label (eq. 6); 0 when there are none.

    q in (0, 1]: towards 0 it is the cross-entropy, at 1 the mean absolute error. logits [B, C, H, W], label integers
    [B, H, W], 255 ignored.
    """
    labelled = label != IGNORE
    target = torch.where(labelled, label, 0).long()
    prob = logits.float().softmax(1).gather(1, target[:, None])[:, 0]  # [B, H, W]
    loss = (1 - prob.clamp_min(1e-7) ** q) / q  # the clamp keeps the gradient finite at p = 0
    return (loss * labelled).sum() / labelled.sum().clamp_min(1)
