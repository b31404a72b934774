"""Matching and losses of MaskFormer (Cheng et al., NeurIPS 2021), for data where some classes have no masks.

L decoder layers, B images, Q proposals, K classes, T targets in the batch, M of them with a mask, H W pixels, h w cells
of the predicted masks. Each layer has its own assignment; losses are returned per layer, [L].
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch.autograd.function import once_differentiable

ALPHA = 0.25  # focal loss: weight of the pixels inside a mask, 1 - ALPHA outside; the exponent is 2
FORBIDDEN = 1e6  # replaces a cost that is not finite
CPU_PIXELS, CUDA_PIXELS = 2**21, 2**25  # mask pixels per pass: the CPU cache, 128 MiB on a GPU
FOCAL, DICE = 20.0, 1.0  # weights in the matching cost and in the loss


@dataclass(frozen=True)
class Targets:
    """Targets of B images: one for each class of an image, in the order of the images, those with a mask first.

    label        uint8 [B, H, W]; the mask of class c is label == c; classes without masks need not occur in it
    padding      bool [B, H, W]
    counts       number of targets of each image
    mask_counts  number of them with a mask
    image        int64 [T], image of each target
    classes      int64 [T], class of each target
    masked       int64 [M], indices of the targets with a mask
    unmasked     int64 [T - M], indices of the targets with an image-level label only
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
        """Masks of the targets that have one, bool [M, H, W]."""
        return self.label[self.image[self.masked]] == self.classes[self.masked, None, None]


def find_targets(
    label: torch.Tensor, present: torch.Tensor, with_mask: Collection[int], padding: torch.Tensor | None = None
) -> Targets:
    """Targets of label maps uint8 [B, H, W] and image-level labels `present` [B, K], non-zero for the classes shown.

    Per image, the classes of `with_mask` come first, in ascending order, then the others. The host reads `present`:
    keep it on the CPU, so that the host need not wait for the GPU.
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
def match_plain(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, targets: Targets, focal: float = FOCAL, dice: float = DICE
) -> torch.Tensor:
    """argmin over assignments of sum_j cost(proposal of j, target j) (DETR, Carion et al., ECCV 2020, eq. 1).

    cost = -p(class) + focal * focal loss + dice * dice loss at the size of the proposals, the last two only for targets
    whose mask is visible there.

    class_logits [L, B, Q, K + 1], mask_logits [L, B, Q, h, w] -> proposal of each target, int64 [L, T]; -1 for a target
    without one, where an image has more targets than proposals.
    """
    found = torch.full((len(mask_logits), len(targets.classes)), -1)
    cells, has_mask = shrink(targets.label, mask_logits.shape[-2:]), torch.zeros_like(targets.classes, dtype=torch.bool)
    has_mask[targets.masked] = True
    for layer, image in product(range(len(mask_logits)), range(len(targets.counts))):
        own = (targets.image == image).nonzero()[:, 0]
        masks = (cells[image] == targets.classes[own, None, None]).flatten(1)
        shown = masks.any(1) & has_mask[own]
        cost = -class_logits[layer, image].softmax(-1)[:, targets.classes[own]]  # [Q, targets of the image]
        pairs = mask_costs_plain(mask_logits[None, layer, image].flatten(2), masks[shown], focal, dice)
        cost[:, shown] += pairs[:, 0].T
        proposals, columns = linear_sum_assignment(cost.cpu().numpy())
        found[layer, own[columns].cpu()] = torch.from_numpy(proposals)
    return found.to(mask_logits.device)


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
    """`match_plain` in float32, with one copy of all costs to the host; costs that are not finite become FORBIDDEN.

    `official` reproduces a defect of the released code: it moves the columns of masks that vanish at the size of the
    proposals behind the others, but reads the assignment in the original order.
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
    """(costs of `match_plain` [T, L, Q], whether a mask is visible at the size of the proposals bool [T]).

    The mask costs of all layers, proposals and masks of an image come from one matrix product.
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


def mask_costs_plain(logits: torch.Tensor, masks: torch.Tensor, focal: float, dice: float) -> torch.Tensor:
    """focal * focal loss + dice * dice loss (`mask_losses_plain`) of every proposal with every mask.

    logits [L, Q, hw], masks [M, hw] -> [M, L, Q]. The sums over the cells inside and outside a mask are written as
    matrix products.
    """
    score, masks = logits.sigmoid(), masks.to(logits.dtype)
    inside = ALPHA * (1 - score) ** 2 * F.softplus(-logits)  # focal loss of a cell inside the mask
    outside = (1 - ALPHA) * score**2 * F.softplus(logits)
    focal_loss = (inside @ masks.T + outside @ (1 - masks).T) / logits.shape[-1]
    dice_loss = 1 - (2 * score @ masks.T + 1) / (score.sum(-1)[..., None] + masks.sum(-1) + 1)
    return (focal * focal_loss + dice * dice_loss).movedim(-1, 0)


def mask_costs(logits: torch.Tensor, masks: torch.Tensor, focal: float, dice: float) -> torch.Tensor:
    """`mask_costs_plain` with one matrix product for the focal loss and in-place steps; all float32."""
    score = logits.sigmoid()
    log = _log_sigmoid(score, logits)
    outside = score.square().mul_(logits - log).mul_(1 - ALPHA)  # loss of a cell outside the mask
    inside = (1 - score).square_().mul_(log).mul_(-ALPHA)
    around = outside.sum(-1)
    focal_loss = (inside.sub_(outside) @ masks.T).add_(around[..., None]) / logits.shape[-1]
    sizes = score.sum(-1)[..., None] + masks.sum(-1)
    dice_loss = 1 - (2 * (score @ masks.T) + 1) / (sizes + 1)
    return (focal * focal_loss + dice * dice_loss).movedim(-1, 0)


def class_loss_plain(
    class_logits: torch.Tensor, targets: Targets, assigned: torch.Tensor, no_object: float = 0.1
) -> torch.Tensor:
    """-sum_q w_q log p_q(c_q) / sum_q w_q over all B Q proposals q of a layer, [L] (MaskFormer, eq. 1, first term).

    c_q is the class of the target assigned to proposal q, w_q = 1, or "no object" with w_q = `no_object`. The weighted
    mean is that of the released code.

    class_logits [L, B, Q, K + 1], "no object" last; assigned [L, T] of `match`.
    """
    losses = []
    for logits, proposals in zip(class_logits, assigned, strict=True):
        own = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=logits.device)
        used = proposals >= 0
        own[targets.image[used], proposals[used]] = targets.classes[used]
        weight = logits.new_ones(logits.shape[-1])
        weight[-1] = no_object
        losses.append(F.cross_entropy(logits.flatten(0, 1), own.flatten(), weight))
    return torch.stack(losses)


def class_loss(
    class_logits: torch.Tensor,
    targets: Targets,
    assigned: torch.Tensor,
    no_object: float = 0.1,
    total: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """`class_loss_plain` in float32, all layers at once; [L]. `total` replaces the sum of weights."""
    layers, images, proposals, classes = class_logits.shape
    # a target without a proposal (-1) writes into the additional last column
    wanted = torch.full((layers, images, proposals + 1), classes - 1, device=class_logits.device)
    layer = torch.arange(layers, device=class_logits.device)[:, None]
    wanted[layer, targets.image, assigned] = targets.classes
    wanted = wanted[..., :proposals]
    loss = F.cross_entropy(class_logits.float().flatten(0, 2), wanted.flatten(), reduction="none")
    weight = torch.where(wanted == classes - 1, no_object, 1.0).flatten(1)
    return (loss.view(layers, -1) * weight).sum(1) / (weight.sum(1) if total is None else total)


def mask_loss_plain(
    mask_logits: torch.Tensor, targets: Targets, assigned: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_j L(proposal of j, mask j) / M over the M targets with a mask (MaskFormer, eq. 1, second term).

    Returns (focal loss, dice loss), [L] each.

    A target whose mask is empty in this crop, or that has no proposal, counts in M and adds 0. M includes base targets
    only, as in the released code of SimFormer. 0 if M = 0.

    mask_logits [L, B, Q, h, w], up-sampled bilinearly to the label; assigned [L, T] of `match`.
    """
    truth, image = targets.masks(), targets.image[targets.masked]
    sums = mask_logits.new_zeros(2, len(mask_logits))
    for layer, proposals in enumerate(assigned[:, targets.masked] if len(image) else ()):
        used = truth.flatten(1).any(1) & (proposals >= 0)
        pairs = mask_losses_plain(mask_logits[layer, image, proposals], truth)
        sums[:, layer] = torch.stack([(loss * used).sum() for loss in pairs])
    focal, dice = sums / max(len(image), 1)
    return focal, dice


def mask_loss(
    mask_logits: torch.Tensor, targets: Targets, assigned: torch.Tensor, num_masks: torch.Tensor | float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`mask_loss_plain` by `mask_losses`, in float32 and without reading a value on the host; ([L], [L]).

    `num_masks` replaces M.
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


def mask_losses_plain(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal loss, dice loss) of each pair of a proposal x and a mask m, both [M].

    focal = mean over pixels of -a (1 - p)^2 log p, p the probability of the truth, a = 1/4 inside the mask, 3/4 outside
            (Lin et al., ICCV 2017, eq. 5)
    dice  = 1 - (2 sum s m + 1) / (sum s + sum m + 1), s = sigmoid(x)  (Milletari et al., V-Net, 3DV 2016, sec. 3,
            with sums for sums of squares; the + 1 is that of the released code)

    logits [M, h, w] are up-sampled bilinearly to masks [M, H, W].
    """
    x, m = enlarge(logits, masks.shape[-2:]).flatten(1), masks.flatten(1).to(logits.dtype)
    s, nll = x.sigmoid(), F.binary_cross_entropy_with_logits(x, m, reduction="none")  # -log p
    p = s * m + (1 - s) * (1 - m)
    alpha = ALPHA * m + (1 - ALPHA) * (1 - m)
    focal = (alpha * (1 - p) ** 2 * nll).mean(1)
    dice = 1 - (2 * (s * m).sum(1) + 1) / (s.sum(1) + m.sum(1) + 1)
    return focal, dice


def mask_losses(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`mask_losses_plain` in float32, gradients computed in the forward pass, some masks at a time.

    The backward pass keeps nothing of the size of the masks. No second derivative.
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
    """log(score) for score = sigmoid(logits), finite where the score underflows; three times as fast as logsigmoid."""
    return score.clamp(min=torch.finfo(score.dtype).tiny).log_().clamp_(max=logits)


def enlarge(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear up-sampling [M, h, w] -> [M, H, W]; as channels of one image, twice as fast as M images."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def shrink(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Nearest-neighbour resizing uint8 [B, H, W] -> [B, h, w]: cell i has the value of pixel floor(i H / h)."""
    return F.interpolate(label[:, None], size=tuple(size), mode="nearest")[:, 0]


def _starts(counts: Sequence[int]) -> list[int]:
    """Index of the first target of each image."""
    return [0, *accumulate(counts)][:-1]
