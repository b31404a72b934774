"""Labels and losses of SSUL (Cha et al., NeurIPS 2021): unknown class, pseudo-labels, binary cross-entropy per class.

B batch, H W pixels. Channels are unknown, background, classes ..., or without the unknown class background, classes ...
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

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


def pseudo_label(label: torch.Tensor, scores: torch.Tensor, threshold: float, last_background: int) -> torch.Tensor:
    """Unknown and background pixels take the old class of the previous network where it is sure (SSUL, eq. 4).

    label int64 [B, H, W] in channel numbers, scores [B, C, H, W] of the previous channels. `last_background` is
    the last channel that is no class: 1 with the unknown channel and 0 without.
    """
    confidence, old = scores.max(1)
    sure = (label <= last_background) & (old > last_background) & (confidence >= threshold)
    return torch.where(sure, old, label)


def binary_cross_entropy(
    logits: torch.Tensor,
    label: torch.Tensor,
    channels: Sequence[int] | None = None,
    pixels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over classes of the binary cross-entropy with a one-hot target, mean over the labelled pixels (SSUL, eq. 3).

    Written as sum_c softplus(z_c) - z_y, which needs no one-hot planes. `channels` tells which classes the logits
    [B, len(channels), H, W] are of, when the others have no gradient: their share of the value is then left out.
    label [B, H, W] holds class numbers and 255. 0 with zero gradients when no pixel is labelled (official: NaN).
    `pixels` replaces the number to divide by, for a batch that is spread over processes.
    """
    label = label.long()
    valid = label != IGNORE
    if channels is None:
        place, present = torch.where(valid, label, 0), valid
    else:
        table = torch.full((IGNORE + 1,), -1, device=label.device)
        table[torch.as_tensor(channels, device=label.device)] = torch.arange(len(channels), device=label.device)
        place = table[label]
        present = place >= 0
        place = place.clamp(min=0)
    scores = logits.float()
    chosen = scores.gather(1, place[:, None])[:, 0]
    per_pixel = F.softplus(scores).sum(1) - torch.where(present, chosen, 0)
    count = valid.sum() if pixels is None else pixels
    return torch.where(valid, per_pixel, 0).sum() / torch.where(count > 0, count, 1)


def focal_loss(logits: torch.Tensor, label: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    """(1 - p_y)^gamma * -log p_y with p = softmax(logits), mean over all B H W pixels, of which the ignored ones add 0.

    logits [B, C, H, W], label [B, H, W]. SSUL's official code has gamma 0: cross-entropy by another count of pixels.
    """
    per_pixel = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none")
    doubt = (1 - (-per_pixel).exp()).clamp(min=1e-12)  # a power below 1 has no gradient at 0
    return (doubt**gamma * per_pixel).mean()
