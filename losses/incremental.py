"""Losses of class-incremental segmentation: SSUL's binary cross-entropy, MiB's unbiased losses, PLOP's.

B batch, H W pixels; z logits [B, K, H, W] of K classes, background first; O of them are old, the last K - O new.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

IGNORE = 255


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


def unbiased_cross_entropy(logits: torch.Tensor, label: torch.Tensor, num_old: int) -> torch.Tensor:
    """Cross-entropy where background may be background or any old class (MiB, Cermelli et al., CVPR 2020, eq. 3).

    Mean over all pixels; ignored ones (255) count in it with 0, as in the official code.
    """
    total = logits.float().logsumexp(1, keepdim=True)
    background = logits[:, :num_old].float().logsumexp(1, keepdim=True) - total
    old = torch.zeros_like(logits[:, 1:num_old], dtype=torch.float32)  # never a target
    log_prob = torch.cat([background, old, logits[:, num_old:].float() - total], dim=1)
    label = label.long()
    target = torch.where(label < num_old, 0, label)
    return F.nll_loss(log_prob, target, ignore_index=IGNORE, reduction="sum") / label.numel()


def unbiased_distillation(logits: torch.Tensor, old_logits: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Distillation where the old background may be background or any new class (MiB, eq. 8); mean over all pixels.

    old_logits [B, O, H, W] of the network of the step before.
    """
    num_old = old_logits.shape[1]
    logits = logits.float()
    total = logits.logsumexp(1, keepdim=True)
    background = torch.cat([logits[:, :1], logits[:, num_old:]], dim=1).logsumexp(1, keepdim=True) - total
    log_prob = torch.cat([background, logits[:, 1:num_old] - total], dim=1)
    wanted = (alpha * old_logits.float()).softmax(1)
    return -(wanted * log_prob).mean(1).mean()


def local_pod(old: torch.Tensor, new: torch.Tensor, scales: Sequence[int] = (1, 2, 4)) -> torch.Tensor:
    """Distance of feature maps [B, D, h, w] by means over strips at several scales (PLOP, Douillard et al., CVPR 2021).

    Features are squared first. At scale s the map has s x s cells of floor(w / s) rows and columns; the mean of each
    cell over its columns and over its rows makes the embedding. Mean over the batch of the Euclidean distances.
    """
    parts = [strips(old.float().square(), scale) - strips(new.float().square(), scale) for scale in scales]
    return torch.cat([part.flatten(1) for part in parts], dim=1).norm(dim=1).mean()


def strips(features: torch.Tensor, scale: int) -> torch.Tensor:
    """Means over columns and over rows of every cell of a scale x scale grid, [B, 2 D side scale^2]."""
    side = features.shape[-1] // scale
    cells = features[..., : side * scale, : side * scale]
    batch, depth, _, _ = cells.shape
    cells = cells.reshape(batch, depth, scale, side, scale, side)
    return torch.cat([cells.mean(5).flatten(1), cells.mean(3).flatten(1)], dim=1)


def fold_new_classes(logits: torch.Tensor, num_old: int) -> torch.Tensor:
    """Logits [B, K, h, w] -> [B, O, h, w]: the new classes are added to background, where the old network saw them."""
    background = logits[:, :1] + logits[:, num_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:num_old]], dim=1)


def pod_loss(
    old: Sequence[torch.Tensor],
    new: Sequence[torch.Tensor],
    num_classes: int,
    num_new: int,
    factor: float = 0.01,
    last_factor: float = 0.0005,
) -> torch.Tensor:
    """Local POD over layers, the last of which are the low-resolution logits; times sqrt(K / N), mean over layers."""
    share = math.sqrt(num_classes / num_new)
    folded = [*new[:-1], fold_new_classes(new[-1], old[-1].shape[1])]
    factors = [factor] * (len(old) - 1) + [last_factor]
    losses = [weight * local_pod(a, b) for weight, a, b in zip(factors, old, folded, strict=True)]
    return share * torch.stack(losses).mean()


def old_class_entropy(old_logits: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Entropy of the old network's classes per pixel [B, H, W], scaled as in the official code of PLOP.

    It takes the mean over the O classes where the normalised entropy has the sum, and divides by ln K once more: values
    lie in [0, 1 / (O ln K)].
    """
    prob = old_logits.float().softmax(1)
    entropy = -(prob * (prob + 1e-8).log()).mean(1) / math.log(old_logits.shape[1] + 1e-8)
    return entropy / math.log(num_classes)
