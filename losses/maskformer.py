"""Losses of MaskFormer (Cheng et al., NeurIPS 2021), where some classes come without a mask.

L decoder layers, B images, Q proposals, K classes, T targets of all images together, M of them with a mask, H W pixels,
h w cells. Each layer has an assignment of its own; the losses of all layers are computed together and returned as [L].
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch.autograd.function import once_differentiable

ALPHA = 0.25  # weight of the mask in the focal loss, 1 - ALPHA of what is around it; its exponent is 2
FORBIDDEN = 1e6  # cost of a pair whose cost is not finite
CPU_PIXELS, CUDA_PIXELS = 2**21, 2**25  # of the masks whose losses are computed together: what a cache holds, or 128 MB
FOCAL, DICE = 20.0, 1.0  # weights in the cost and in the loss


@dataclass(frozen=True)
class Targets:
    """What the proposals of B images are assigned to: one target per class, image after image, those with a mask first.

    label        uint8 [B, H, W]: the mask of class c is where it is c; classes without masks may be missing from it
    padding      bool [B, H, W]
    counts       targets of each image, and `mask_counts`, how many of them have a mask
    image        int64 [T], the image of each target
    classes      int64 [T], its class
    masked       int64 [M], which targets have a mask; `unmasked` [T - M], which are known to be there only
    """

    label: torch.Tensor
    padding: torch.Tensor
    counts: list[int]
    mask_counts: list[int]
    image: torch.Tensor
    classes: torch.Tensor
    masked: torch.Tensor
    unmasked: torch.Tensor

    def masks(self) -> torch.Tensor:
        """bool [M, H, W]."""
        return self.label[self.image[self.masked]] == self.classes[self.masked, None, None]


def find_targets(
    label: torch.Tensor, present: torch.Tensor, with_mask: Collection[int], padding: torch.Tensor | None = None
) -> Targets:
    """Targets of label maps uint8 [B, H, W]; present [B, K] tells the classes of each image, not 0.

    Classes of `with_mask` come first, ascending, then the others, ascending. `present` is read on the host: keep it
    there, or the step before is waited for.
    """
    trusted = np.isin(np.arange(present.shape[1]), list(with_mask))
    rows = present.cpu().numpy() != 0
    classes = [np.concatenate([np.flatnonzero(row & trusted), np.flatnonzero(row & ~trusted)]) for row in rows]
    counts, flat = [len(one) for one in classes], np.concatenate(classes)
    has_mask = trusted[flat]
    parts = [np.repeat(np.arange(len(counts)), counts), flat, np.flatnonzero(has_mask), np.flatnonzero(~has_mask)]
    joined = torch.from_numpy(np.concatenate(parts)).to(label.device, non_blocking=True)
    outside = torch.zeros_like(label, dtype=torch.bool) if padding is None else padding.bool()
    mask_counts = (rows & trusted).sum(1).tolist()
    return Targets(label, outside, counts, mask_counts, *joined.split([len(part) for part in parts]))


@torch.no_grad()
def match(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    targets: Targets,
    *,
    focal: float = FOCAL,
    dice: float = DICE,
    official: bool = False,
) -> torch.Tensor:
    """The proposal of each target, int64 [L, T]; -1 where there are fewer proposals than targets.

    The cheapest assignment of each layer and image by `matching_costs`. All costs go to the host in one copy; solving
    them there takes microseconds each. `official` reproduces a defect of the published code: it puts the columns of
    masks that vanish at the size of the proposals behind the others, and reads the answer as if it had not.
    """
    costs, visible = matching_costs(class_logits, mask_logits, targets, focal, dice)
    host = costs.nan_to_num(FORBIDDEN, FORBIDDEN, -FORBIDDEN).cpu().numpy()  # [T, L, Q]
    hidden = ~visible.cpu().numpy() if official else np.zeros(len(host), bool)
    found = np.full(host.shape[1::-1], -1)
    for start, count in zip(_starts(targets.counts), targets.counts, strict=True):
        order = start + np.argsort(hidden[start : start + count], kind="stable")
        for layer in range(host.shape[1]):
            proposals, columns = linear_sum_assignment(host[order, layer].T)
            found[layer, start + columns] = proposals
    return torch.from_numpy(found).to(mask_logits.device, non_blocking=True)


def matching_costs(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, targets: Targets, focal: float = FOCAL, dice: float = DICE
) -> tuple[torch.Tensor, torch.Tensor]:
    """(costs [T, L, Q] in the order of the targets, which masks are visible at the size of the proposals bool [T]).

    - probability of the class, and for a visible mask + focal * focal loss + dice * dice loss of the proposal with it.
    The losses of all proposals of all layers with all masks of an image are one product of matrices.
    """
    costs = -class_logits.float().softmax(-1)[:, targets.image, :, targets.classes]
    visible = torch.zeros_like(targets.image, dtype=torch.bool)
    cells = shrink(targets.label, mask_logits.shape[-2:]).flatten(1)
    for number, (start, count) in enumerate(zip(_starts(targets.counts), targets.mask_counts, strict=True)):
        part = slice(start, start + count)
        masks = (cells[number] == targets.classes[part, None]).float()
        visible[part] = masks.any(1)
        loss = mask_costs(mask_logits[:, number].float().flatten(2), masks, focal, dice)
        costs[part] += torch.where(visible[part, None, None], loss, 0)
    return costs, visible


def mask_costs(logits: torch.Tensor, masks: torch.Tensor, focal: float, dice: float) -> torch.Tensor:
    """focal * focal loss + dice * dice loss of every proposal [L, Q, hw] with every mask [M, hw], as [M, L, Q]."""
    score = logits.sigmoid()
    log = _log_sigmoid(score, logits)
    outside = score.square().mul_(logits - log).mul_(1 - ALPHA)  # a cell's loss where the mask is not
    inside = (1 - score).square_().mul_(log).mul_(-ALPHA)
    around = outside.sum(-1)
    focal_loss = (inside.sub_(outside) @ masks.T).add_(around[..., None]) / logits.shape[-1]
    sizes = score.sum(-1)[..., None] + masks.sum(-1)
    dice_loss = 1 - (2 * (score @ masks.T) + 1) / (sizes + 1)
    return (focal * focal_loss + dice * dice_loss).movedim(-1, 0)


def class_loss(
    class_logits: torch.Tensor,
    targets: Targets,
    assigned: torch.Tensor,
    no_object: float = 0.1,
    total: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """Cross-entropy of all B * Q proposals [L], "no object" where a proposal has no target: a mean by weight.

    class_logits [L, B, Q, K + 1], assigned [L, T] of `match`; weights are 1, and `no_object` for that class. `total`
    replaces the sum of weights, for a batch that is spread over processes.
    """
    layers, images, proposals, classes = class_logits.shape
    # proposal -1, of a target without one, is the column behind the last
    wanted = torch.full((layers, images, proposals + 1), classes - 1, device=class_logits.device)
    layer = torch.arange(layers, device=class_logits.device)[:, None]
    wanted[layer, targets.image, assigned] = targets.classes
    wanted = wanted[..., :proposals]
    loss = F.cross_entropy(class_logits.float().flatten(0, 2), wanted.flatten(), reduction="none")
    weight = torch.where(wanted == classes - 1, no_object, 1.0).flatten(1)
    return (loss.view(layers, -1) * weight).sum(1) / (weight.sum(1) if total is None else total)


def mask_loss(
    mask_logits: torch.Tensor, targets: Targets, assigned: torch.Tensor, num_masks: torch.Tensor | float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal loss, dice loss), each [L]: sums over the targets that have a mask / their number; 0 without any.

    Only the proposals that are assigned to one are brought to the size of the label, bilinearly. A target whose mask
    the label does not show, or that has no proposal, counts in the number only. `num_masks` replaces that number, for
    a batch that is spread over processes.
    """
    if not len(targets.masked):
        return mask_logits.new_zeros(len(mask_logits)), mask_logits.new_zeros(len(mask_logits))
    truth, image, chosen = targets.masks(), targets.image[targets.masked], assigned[:, targets.masked]
    usable = truth.flatten(1).any(1) & (chosen >= 0)  # [L, M]
    count = len(image) if num_masks is None else num_masks
    focal: list[torch.Tensor] = []
    dice: list[torch.Tensor] = []
    for logits, proposal, used in zip(mask_logits, chosen, usable, strict=True):
        for losses, loss in zip((focal, dice), mask_losses(logits[image, proposal], truth), strict=True):
            losses.append((loss * used).sum() / count)
    return torch.stack(focal), torch.stack(dice)


def mask_losses(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal loss, dice loss) of each pair of logits [M, h, w] and mask [M, H, W], both [M].

    focal = mean over pixels of a (1 - p)^2 (-log p), p the probability of the truth, a = 1/4 in the mask, 3/4 around
    dice  = 1 - (2 sum s m + 1) / (sum s + sum m + 1), s the sigmoid

    Logits are brought to the size of the masks, bilinearly. The gradients are found beside the losses, some masks at a
    time: nothing of the size of the masks is kept for the backward pass. They cannot be differentiated once more.
    """
    return _MaskLosses.apply(logits, masks)


class _MaskLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = max(1, (CUDA_PIXELS if logits.is_cuda else CPU_PIXELS) // masks[0].numel())
        pairs = zip(logits.detach().float().split(step), masks.split(step), strict=True)
        parts = [_losses_and_gradients(*pair, ctx.needs_input_grad[0]) for pair in pairs]
        focal, dice, *gradients = (torch.cat(values) for values in zip(*parts, strict=True))
        ctx.save_for_backward(*gradients)
        ctx.dtype = logits.dtype
        return focal, dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, focal: torch.Tensor, dice: torch.Tensor) -> tuple[torch.Tensor, None]:
        by_focal, by_dice = ctx.saved_tensors
        gradient = focal[:, None, None] * by_focal + dice[:, None, None] * by_dice
        return gradient.to(ctx.dtype), None


def _losses_and_gradients(logits: torch.Tensor, masks: torch.Tensor, gradients: bool) -> list[torch.Tensor]:
    """[focal [M], dice [M]], and the gradient of each with respect to the logits [M, h, w]."""
    with torch.set_grad_enabled(gradients):
        large = enlarge(logits.requires_grad_(gradients), masks.shape[-2:])
    x, truth = large.detach().flatten(1), masks.flatten(1).float()
    score = x.sigmoid()
    entropy = (1 - truth).mul_(x).sub_(_log_sigmoid(score, x))  # -log p
    error = score - truth  # 1 - p, negative in the mask
    size = error.abs()
    weighted = ((2 * ALPHA - 1) * truth).add_(1 - ALPHA).mul_(size)
    focal = (weighted * size).mul_(entropy).mean(1)
    both, sums = 2 * (score * truth).sum(1) + 1, score.sum(1) + truth.sum(1) + 1
    losses = [focal, 1 - both / sums]
    if not gradients:
        return losses
    by_focal = entropy.mul_(1 - size).mul_(2).add_(size).mul_(weighted).mul_(error).div_(x.shape[1])
    by_dice = score.addcmul_(score, score, value=-1).mul_((both / sums.square())[:, None] - truth * (2 / sums)[:, None])
    both_ways = (torch.autograd.grad(large, logits, by.view_as(large), retain_graph=True) for by in (by_focal, by_dice))
    return losses + [gradient for (gradient,) in both_ways]


def _log_sigmoid(score: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of a score, the sigmoid of logits: exact where the score is 0, in a third of logsigmoid's time."""
    return score.clamp(min=torch.finfo(score.dtype).tiny).log_().clamp_(max=logits)


def enlarge(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """[M, h, w] -> [M, H, W], bilinear; as channels of one image, which takes half the time of M images."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def shrink(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """uint8 [B, H, W] -> [B, h, w]: cell i has the value of pixel floor(i H / h), as in the official code."""
    return F.interpolate(label[:, None], size=tuple(size), mode="nearest")[:, 0]


def _starts(counts: Sequence[int]) -> list[int]:
    return [0, *accumulate(counts)][:-1]
