"""Losses of ZS3Net (Bucher et al., NeurIPS 2019): maximum mean discrepancy, weighted cross-entropy, DeViSE's cosine.

B images, C classes, D dimensions of a feature, H W pixels; M generated and N real features of a class.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from utils.labels import IGNORE

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # released code; the paper has sigma in 2, 5, 10, 20, 40, 60
SMALLEST = 1e-12  # lower bound of the radicand; rounding makes it negative for equal sets (NaN in the released code)


def mmd_plain(fake: torch.Tensor, real: torch.Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> torch.Tensor:
    """sqrt( mean k(f, f') + mean k(r, r') - 2 mean k(f, r) ), k(a, b) = sum_v exp(-|a - b|^2 / 2v).

    The generator's loss L_GMMN (eq. 1) with means for its sums, the root of the released code and v for sigma^2: the
    biased MMD of Gretton et al. (JMLR 2012, eq. 5), which includes the diagonals.

    fake [M, D], real [N, D] -> scalar. Only `fake` receives a gradient.
    """

    def mean_kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squares = (a[:, None] - b[None]).square().sum(-1)
        return torch.stack([torch.exp(-squares / (2 * v)) for v in bandwidths]).sum(0).mean()

    real = real.detach()
    return (mean_kernel(fake, fake) + mean_kernel(real, real) - 2 * mean_kernel(fake, real)).clamp(min=SMALLEST).sqrt()


def mmd(fake: torch.Tensor, real: torch.Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> torch.Tensor:
    """`mmd_plain` of many sets at once, distances by one matrix product, in at least float32.

    fake [..., M, D], real [..., N, D] -> [...]. Only `fake` receives a gradient.
    """
    both, joined = fake.shape[-2], torch.cat([_wide(fake), _wide(real.detach())], dim=-2)
    squares = joined.square().sum(-1)
    distance = (squares[..., :, None] + squares[..., None, :] - 2 * joined @ joined.mT).clamp(min=0)
    kernel = torch.stack([torch.exp(distance / (-2 * v)) for v in bandwidths]).sum(0)
    within = kernel[..., :both, :both].mean((-2, -1)) + kernel[..., both:, both:].mean((-2, -1))
    return (within - 2 * kernel[..., :both, both:].mean((-2, -1))).clamp(min=SMALLEST).sqrt()


def class_weights(num_classes: int, unseen: Sequence[int], weight: float) -> torch.Tensor:
    """Class weights [C]: `weight` for the unseen classes, 1 for the others."""
    weights = torch.ones(num_classes)
    weights[list(unseen)] = weight
    return weights


def label_weight(label: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of the class weights [C] over the labelled pixels of a label of any shape; 255 has weight 0."""
    return torch.cat([weights, weights.new_zeros(IGNORE + 1 - len(weights))])[label.long()].sum()


def weighted_cross_entropy_plain(
    logits: torch.Tensor, label: torch.Tensor, weights: torch.Tensor | None = None, images: int = 1
) -> torch.Tensor:
    """-[ sum_i w(y_i) log softmax(z_i)[y_i] / sum_i w(y_i) ] / images over the labelled pixels i; 0 without any.

    The released code divides the weighted mean by the number of images of the batch once more.

    logits [B, C, ...], label [B, ...], weights [C], or None for ones.
    """
    valid = label != IGNORE
    own = torch.where(valid, label, 0).long()
    weights = logits.new_ones(logits.shape[1]) if weights is None else weights.to(logits.dtype)
    weight, nll = weights[own] * valid, -logits.log_softmax(1).gather(1, own[:, None])[:, 0]
    return (weight * nll).sum() / weight.sum().clamp(min=SMALLEST) / images


def weighted_cross_entropy(
    logits: torch.Tensor,
    label: torch.Tensor,
    weights: torch.Tensor | None = None,
    images: int = 1,
    total: torch.Tensor | None = None,
) -> torch.Tensor:
    """`weighted_cross_entropy_plain` without a copy of channels-last logits, in at least float32.

    `total` replaces the sum of weights.
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
    """Mean over the labelled pixels of 1 - cos(output, word vector of the class): the DeViSE-like baseline.

    similarity [B, C, H, W], cosine of each pixel's output with each class's vector; label [B, H, W]. `pixels` replaces
    the number of labelled pixels. 0 with zero gradients if nothing is labelled.
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
    """Pseudo-label of ZS5Net (self-training) for one image, and the lowest kept probability of each class.

    Of the pixels predicted as an unseen class, the ceil(percent %) with the highest probability keep their label, ties
    with the last one included, and the others get 255. `pooling` ranks all unseen classes of the image together, or
    each class by itself. `others` ignores the pixels of seen classes or keeps their prediction.

    logits [C, H, W] -> uint8 [H, W], {unseen class: probability}.
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
    """`values` in at least float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
