"""Image entropy and teacher labels of EUMS (Zhao et al., CVPR 2022, sec. 3.4).

B images, C outputs, H W pixels, h w feature cells.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from losses.upsampled import bilinear
from utils.labels import ignore_of, is_wide

PART = 2**18  # logits computed at a time; they fit the cache of a core


def image_entropy_plain(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the masked pixels of H(p) / (C log C), H(p) = -sum_c p_c log p_c with p = softmax(z): [B].

    H(p) / log C is the normalised entropy of the paper (sec. 3.4). The released code averages p log p over the channels
    where the definition sums: hence the further 1/C, which leaves the ranking as it is.

    logits [B, C, h, w] are up-sampled bilinearly to mask bool [B, H, W]. NaN where a mask is empty.
    """
    log_prob = F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=False).log_softmax(1)
    entropy = -(log_prob.exp() * log_prob).sum(1) / math.log(logits.shape[1])
    return torch.stack([values[inside].mean() for values, inside in zip(entropy, mask, strict=True)]) / logits.shape[1]


def image_entropy(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`image_entropy_plain` in float32, up-sampled at the masked pixels only.

    logits [B, C, h, w], mask bool [B, H, W] -> [B]; NaN where a mask is empty.
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
    """The four feature cells around each of the N masked pixels and their bilinear weights.

    mask bool [B, H, W], cells (h, w) -> int64 [N, 4], indices into the B h w cells in row-major order, and float32
    [N, 4]. [N, 1] if the mask has the size of the cells.
    """
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
    """`image_entropy` over the pixels that the clustering pseudo-label marks as novel: [B].

    logits [B, C, h, w]; batch["pseudo"] integers [B, H, W], where numbers from `num_known` on are clusters.
    """
    pseudo = batch["pseudo"]
    return image_entropy(logits, (pseudo >= num_known) & (pseudo != ignore_of(pseudo)))


def teacher_label(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Arg-max class of the teacher, ignored where its probability is below the threshold (sec. 3.4).

    logits [B, C, H, W] -> int64 [B, H, W]; int32 with more than 255 classes (utils.labels).
    """
    wide = is_wide(logits.shape[1])
    confidence, label = logits.float().softmax(1).max(1) if threshold > 0 else (None, logits.argmax(1))
    label = label.int() if wide else label
    return label if confidence is None else torch.where(confidence < threshold, ignore_of(label), label)
