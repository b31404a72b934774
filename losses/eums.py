"""Uncertainty of an image over its objects, and the teacher's labels (EUMS, Zhao et al., CVPR 2022, sec. 3.4)."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from losses.upsampled import bilinear
from utils.labels import ignore_of, is_wide

PART = 2**18  # logits at a time: what a core's cache takes


def image_entropy(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Score of each image: Shannon entropy, normalised to [0, 1] by log2 C, averaged over the masked pixels, times 1/C.

    logits [B, C, h, w], mask bool [B, H, W] -> [B]; NaN where the mask is empty. The factor 1/C comes from the official
    code, which averages over channels where the definition sums. Only masked pixels are computed: logits of feature
    cells are up-sampled bilinearly for these alone.
    """
    num_classes = logits.shape[1]
    pixels = mask.flatten(1).sum(1).tolist()  # one wait for the device, not one per image
    cells = logits.float().permute(0, 2, 3, 1).reshape(-1, num_classes)
    index, share = neighbours(mask, logits.shape[-2:])
    part = max(1, PART // num_classes)
    scores = []
    for near, weight in zip(index.split(pixels), share.split(pixels), strict=True):
        total = logits.new_zeros((), dtype=torch.float32)
        for some, weights in zip(near.split(part), weight.split(part), strict=True):
            log_prob = F.embedding_bag(some, cells, per_sample_weights=weights, mode="sum").log_softmax(1)
            total -= torch.dot(log_prob.exp().flatten(), log_prob.flatten())
        scores.append(total / (math.log(num_classes) * num_classes * len(near) or math.nan))
    return torch.stack(scores)


def neighbours(mask: torch.Tensor, cells: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells, of all B h w in a row, that each of N masked pixels is made of, int64 [N, 4], and their weights."""
    image, *place = mask.nonzero(as_tuple=True)
    if tuple(mask.shape[-2:]) == tuple(cells):
        index = (image * cells[0] + place[0]) * cells[1] + place[1]
        return index[:, None], torch.ones_like(index, dtype=torch.float32)[:, None]
    (top, bottom, down), (left, right, across) = (
        tuple(values.to(mask.device)[at] for values in bilinear(few, many))
        for few, many, at in zip(cells, mask.shape[-2:], place, strict=True)
    )
    rows = [(image * cells[0] + row) * cells[1] for row in (top, bottom)]
    index = torch.stack([row + column for row in rows for column in (left, right)], 1)
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return index, torch.stack(weights, 1)


def object_entropy(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], num_known: int) -> torch.Tensor:
    """`image_entropy` over the pixels that a clustering pseudo label marks as novel: [B].

    logits [B, C, h, w], batch["pseudo"] integers [B, H, W]: background and base classes below `num_known`, then
    clusters.
    """
    pseudo = batch["pseudo"]
    return image_entropy(logits, (pseudo >= num_known) & (pseudo != ignore_of(pseudo)))


def teacher_label(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """The teacher's arg-max class: logits [B, C, H, W] -> [B, H, W]; ignored where its prob < threshold.

    int64, of more than 255 classes int32 (utils.labels).
    """
    wide = is_wide(logits.shape[1])
    confidence, label = logits.float().softmax(1).max(1) if threshold > 0 else (None, logits.argmax(1))
    label = label.int() if wide else label
    return label if confidence is None else torch.where(confidence < threshold, ignore_of(label), label)
