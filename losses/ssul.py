"""Labels and losses of SSUL (Cha et al., NeurIPS 2021): unknown class, pseudo-labels, binary cross-entropy per class.

B images, C channels, H W pixels, h w feature cells. The channels are [unknown, background, classes ...], or
[background, classes ...] without the unknown class.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from losses.upsampled import SummedBinaryCrossEntropy
from utils.labels import IGNORE


def training_target(label: torch.Tensor, saliency: torch.Tensor | None, unknown: str) -> torch.Tensor:
    """Train ids [B, H, W] -> int64 channel numbers.

    `unknown` names the background that becomes the unknown class: "saliency" the salient part, "background" all of it,
    "off" none, without an unknown channel.
    """
    if unknown == "off":
        return label.long()
    return add_unknown(label, saliency if unknown == "saliency" else None)


def add_unknown(label: torch.Tensor, salient: torch.Tensor | None) -> torch.Tensor:
    """Train ids [B, H, W] -> channel numbers [unknown, background, classes ...]; 255 stays.

    Salient background becomes unknown; all background if there is no saliency map [B, H, W], as on ADE20K.
    """
    label = label.long()
    moved = torch.where(label == IGNORE, IGNORE, label + 1)
    background = label == 0
    return torch.where(background if salient is None else background & (salient > 0), 0, moved)


def pseudo_label(
    label: torch.Tensor, score: torch.Tensor, old: torch.Tensor, threshold: float, last_background: int
) -> torch.Tensor:
    """Pseudo-label of eq. 4: unknown and background pixels take the previous network's class where it is certain.

    label int64 channel numbers, `old` the best channel of the previous network and `score` its probability, all
    [B, H, W]. `last_background` is the last channel that is not a class: 1 with the unknown channel, 0 without.
    """
    sure = (label <= last_background) & (old > last_background) & (score >= threshold)
    return torch.where(sure, old, label)


def binary_cross_entropy_plain(
    logits: torch.Tensor, label: torch.Tensor, channels: Sequence[int] | None = None
) -> torch.Tensor:
    """-sum_i sum_c [ t_ic log s(z_ic) + (1 - t_ic) log(1 - s(z_ic)) ] / N over the N labelled pixels i (eq. 3).

    t is the one-hot label and s the sigmoid. The sum runs over channels, whose number the mean does not divide by. 0 if
    N = 0.

    logits [B, C, h, w] are up-sampled bilinearly to label [B, H, W], channel numbers and 255. With `channels`, the
    logits are those of these C channels only.
    """
    valid = label != IGNORE
    listed = range(logits.shape[1]) if channels is None else channels
    target = torch.stack([label == number for number in listed], 1).to(logits.dtype)
    large = F.interpolate(logits, size=label.shape[-2:], mode="bilinear", align_corners=False)
    per_pixel = F.binary_cross_entropy_with_logits(large, target, reduction="none").sum(1)
    return (per_pixel * valid).sum() / valid.sum().clamp(min=1)


def binary_cross_entropy(
    logits: torch.Tensor,
    label: torch.Tensor,
    channels: Sequence[int] | None = None,
    pixels: torch.Tensor | None = None,
) -> torch.Tensor:
    """`binary_cross_entropy_plain` in float32, up-sampled one strip of rows at a time (losses/upsampled.py).

    Computed as sum_c softplus(z_c) - z_y, without one-hot planes. Pass the logits of the feature cells, and
    `channels` if the other channels receive no gradient. `pixels` replaces N.
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
    """Index of each label value in `channels`, -1 for other values: int64 [256], cached on the device."""
    table = torch.full((IGNORE + 1,), -1)
    table[list(channels)] = torch.arange(len(channels))
    return table.to(device)


def focal_loss(logits: torch.Tensor, label: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    """-(1 - p_y)^gamma log p_y, p = softmax(logits) (Lin et al., ICCV 2017, eq. 4), mean over all B H W pixels.

    Ignored pixels add 0 and count. The released code of SSUL sets gamma 0: cross-entropy with another denominator.

    logits [B, C, H, W], label [B, H, W].
    """
    per_pixel = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none")
    doubt = (1 - (-per_pixel).exp()).clamp(min=1e-12)  # the gradient of a power below 1 is infinite at 0
    return (doubt**gamma * per_pixel).mean()
