"""Uncertainty of an image over its objects, and the teacher's labels (EUMS, Zhao et al., CVPR 2022, sec. 3.4)."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from utils.labels import ignore_of, is_wide


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


def object_entropy(output: Any, batch: Mapping[str, torch.Tensor], num_known: int) -> torch.Tensor:
    """`image_entropy` over the pixels that a clustering pseudo label marks as novel: [B].

    output.logits [B, C, H, W], batch["pseudo"] integers [B, H, W]: background and base classes below `num_known`, then
    clusters.
    """
    pseudo = batch["pseudo"]
    return image_entropy(output.logits.float(), (pseudo >= num_known) & (pseudo != ignore_of(pseudo)))


def teacher_label(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """The teacher's arg-max class: logits [B, C, H, W] -> [B, H, W]; ignored where its prob < threshold.

    int64, of more than 255 classes int32 (utils.labels).
    """
    wide = is_wide(logits.shape[1])
    confidence, label = logits.float().softmax(1).max(1) if threshold > 0 else (None, logits.argmax(1))
    label = label.int() if wide else label
    return label if confidence is None else torch.where(confidence < threshold, ignore_of(label), label)
