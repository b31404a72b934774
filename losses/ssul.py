"""Labels and losses of SSUL (Cha et al., NeurIPS 2021): unknown class, pseudo-labels, binary cross-entropy per class.

B batch, H W pixels. Channels are unknown, background, classes ..., or without the unknown class background, classes ...
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from losses.upsampled import SummedBinaryCrossEntropy
from utils.labels import IGNORE


def training_target(label: torch.Tensor, saliency: torch.Tensor | None, unknown: str) -> torch.Tensor:
    """Train ids [B, H, W] as channel numbers, by what is unknown: `saliency`, all `background`, or `off`: nothing."""
    if unknown == "off":
        return label.long()
    return add_unknown(label, saliency if unknown == "saliency" else None)


def add_unknown(label: torch.Tensor, salient: torch.Tensor | None) -> torch.Tensor:
    """Train ids [B, H, W] as channels [unknown, background, classes ...]: all move by one, 255 stays.

    Salient background becomes unknown; without a saliency map [B, H, W] all of it, as on ADE20K.
    """
    label = label.long()
    moved = torch.where(label == IGNORE, IGNORE, label + 1)
    background = label == 0
    return torch.where(background if salient is None else background & (salient > 0), 0, moved)


def pseudo_label(
    label: torch.Tensor, score: torch.Tensor, old: torch.Tensor, threshold: float, last_background: int
) -> torch.Tensor:
    """Unknown and background pixels take the old class of the previous network where it is sure (SSUL, eq. 4).

    label int64 in channel numbers, `old` the best of the previous channels with its `score`, all [B, H, W].
    `last_background` is the last channel that is no class: 1 with the unknown channel and 0 without.
    """
    sure = (label <= last_background) & (old > last_background) & (score >= threshold)
    return torch.where(sure, old, label)


def binary_cross_entropy(
    logits: torch.Tensor,
    label: torch.Tensor,
    channels: Sequence[int] | None = None,
    pixels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over classes of the binary cross-entropy with a one-hot target, mean over the labelled pixels (SSUL, eq. 3).

    logits [B, C, h, w] are brought to the size of label [B, H, W], class numbers and 255, as F.interpolate does it
    bilinearly, but a strip of rows at a time: give those of the feature cells, so that the large ones never exist.
    Written as sum_c softplus(z_c) - z_y, which needs no one-hot planes. `channels` tells which classes the logits are
    of, when the others have no gradient: their share of the value is then left out. 0 with zero gradients when no pixel
    is labelled (official: NaN). `pixels` replaces the number to divide by, for a batch that is spread over processes.
    """
    label = label.long()
    valid = label != IGNORE
    if channels is None:
        place, present = torch.where(valid, label, 0), valid
    else:
        place = _places(tuple(channels), label.device)[label]
        present = place >= 0
        place = place.clamp(min=0)
    total = SummedBinaryCrossEntropy.apply(logits.float(), place, present, valid)
    count = valid.sum() if pixels is None else pixels
    return total / torch.where(count > 0, count, 1)


@lru_cache(maxsize=32)
def _places(channels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Place of each label value among some channels, -1 elsewhere: int64 [256], kept on the device."""
    table = torch.full((IGNORE + 1,), -1)
    table[list(channels)] = torch.arange(len(channels))
    return table.to(device)


def focal_loss(logits: torch.Tensor, label: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    """(1 - p_y)^gamma * -log p_y with p = softmax(logits), mean over all B H W pixels, of which the ignored ones add 0.

    logits [B, C, H, W], label [B, H, W]. SSUL's official code has gamma 0: cross-entropy by another count of pixels.
    """
    per_pixel = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none")
    doubt = (1 - (-per_pixel).exp()).clamp(min=1e-12)  # a power below 1 has no gradient at 0
    return (doubt**gamma * per_pixel).mean()
