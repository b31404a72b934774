"""Losses of ZS3Net (Bucher et al., NeurIPS 2019): maximum mean discrepancy, weighted cross-entropy, DeViSE's cosine.

B images, C classes, D features, H W pixels, M N features of a class.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from utils.labels import IGNORE

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # the code's; the paper writes sigma in 2, 5, 10, 20, 40, 60
SMALLEST = 1e-12  # of what the root is taken of: rounding makes equal sets negative, where the official code gets NaN


def mmd(fake: torch.Tensor, real: torch.Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> torch.Tensor:
    """sqrt( sum_v mean k_v(fake, fake) + mean k_v(real, real) - 2 mean k_v(fake, real) ), k_v = exp(-|a - b|^2 / 2v).

    fake [..., M, D], real [..., N, D] -> [...]. Biased estimator, the diagonals counted, as the official code has it
    for M = N. Gradients flow to `fake` only.
    """
    both, joined = fake.shape[-2], torch.cat([_wide(fake), _wide(real.detach())], dim=-2)
    squares = joined.square().sum(-1)
    distance = (squares[..., :, None] + squares[..., None, :] - 2 * joined @ joined.mT).clamp(min=0)
    kernel = torch.stack([torch.exp(distance / (-2 * v)) for v in bandwidths]).sum(0)
    within = kernel[..., :both, :both].mean((-2, -1)) + kernel[..., both:, both:].mean((-2, -1))
    return (within - 2 * kernel[..., :both, both:].mean((-2, -1))).clamp(min=SMALLEST).sqrt()


def class_weights(num_classes: int, unseen: Sequence[int], weight: float) -> torch.Tensor:
    """[C]: 1, and `weight` for unseen classes."""
    weights = torch.ones(num_classes)
    weights[list(unseen)] = weight
    return weights


def label_weight(label: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of the class weights of all labelled pixels; label is of any shape, 255 counts nothing."""
    return torch.cat([weights, weights.new_zeros(IGNORE + 1 - len(weights))])[label.long()].sum()


def weighted_cross_entropy(
    logits: torch.Tensor,
    label: torch.Tensor,
    weights: torch.Tensor | None = None,
    images: int = 1,
    total: torch.Tensor | None = None,
) -> torch.Tensor:
    """[ sum_i w(y_i) ce_i / sum_i w(y_i) ] / images: the official code divides the mean once more by the batch size.

    logits [B, C, ...], label [B, ...] with 255 ignored, weights [C] or None for ones. `total` replaces the sum of
    weights, for a batch that is spread over processes. 0 with zero gradients when nothing is labelled (official: NaN).
    """
    label = label.long().flatten()
    per_pixel = _wide(logits).movedim(1, -1).flatten(0, -2)
    own = None if weights is None else weights.to(per_pixel.dtype)
    loss = F.cross_entropy(per_pixel, label, own, ignore_index=IGNORE, reduction="sum")
    if total is None:
        ones = torch.ones(logits.shape[1], device=logits.device)
        total = label_weight(label, ones if weights is None else weights)
    return loss / torch.where(total > 0, total, 1) / images


def cosine_loss(similarity: torch.Tensor, label: torch.Tensor, pixels: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over labelled pixels of 1 - cos(output, word vector of the class): the DeViSE-like baseline of the paper.

    similarity [B, C, H, W] of every pixel's output with the vector of each class, label [B, H, W]. `pixels` replaces
    the number to divide by. 0 with zero gradients when nothing is labelled.
    """
    valid = label != IGNORE
    own = similarity.gather(1, torch.where(valid, label, 0).long()[:, None])[:, 0]
    count = valid.sum() if pixels is None else pixels
    return torch.where(valid, 1 - own, 0).sum() / torch.where(count > 0, count, 1)


def keep_most_certain(
    logits: torch.Tensor,
    unseen: Sequence[int],
    percent: float,
    pooling: Literal["image", "class"] = "image",
    others: Literal["ignore", "keep"] = "ignore",
) -> tuple[torch.Tensor, dict[int, float]]:
    """Pseudo-label uint8 [H, W] of one image's logits [C, H, W], and the least certain probability kept per class.

    Of the pixels labelled with an unseen class the top ceil(percent %) by probability stay, over all unseen classes
    together or each by itself, with those as certain as the last of them; the rest is 255. Pixels of a seen class are
    255 as well, or keep their label.
    """
    score, label = logits.float().softmax(0).max(0)
    found = [label == number for number in unseen]
    groups = [torch.stack(found).any(0)] if pooling == "image" else found
    kept = torch.zeros_like(found[0])
    sizes = torch.stack([group.sum() for group in groups]).tolist()
    for group, size in zip(groups, sizes, strict=True):
        count = math.ceil(percent / 100 * size)
        if count:
            kept |= group & (score >= torch.where(group, score, -1).flatten().topk(count).values[-1])
    lowest = torch.stack([torch.where(mask & kept, score, torch.inf).min() for mask in found]).tolist()
    thresholds = {number: value for number, value in zip(unseen, lowest, strict=True) if value < torch.inf}
    if others == "keep":
        kept |= ~torch.stack(found).any(0)
    return torch.where(kept, label, IGNORE).to(torch.uint8), thresholds


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In at least single precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
