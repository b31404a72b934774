"""Uncertainty of an image over its objects, and the teacher's labels (EUMS, Zhao et al., CVPR 2022, sec. 3.4)."""

import math

import torch


def image_entropy(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Score of each image: Shannon entropy, normalised to [0, 1] by log2 C, averaged over the masked pixels, times 1/C.

    logits [B, C, H, W], mask bool [B, H, W] -> [B]; NaN where the mask is empty. The factor 1/C comes from the official
    code, which averages over channels where the definition sums. Only masked pixels are computed.
    """
    num_classes = logits.shape[1]
    scores = []
    for image, inside in zip(logits, mask, strict=True):
        prob = image[:, inside].float().softmax(0)  # 1e-30 is 0 in half precision
        information = -(prob * torch.log2(prob + 1e-30)) / math.log2(num_classes)
        scores.append(information.mean())
    return torch.stack(scores)


def teacher_label(logits: torch.Tensor, threshold: float, ignore_index: int = 255) -> torch.Tensor:
    """The teacher's arg-max class: logits [B, C, H, W] -> int64 [B, H, W]; ignored where its prob < threshold."""
    if threshold <= 0:
        return logits.argmax(1)
    confidence, label = logits.float().softmax(1).max(1)
    return torch.where(confidence < threshold, ignore_index, label)
