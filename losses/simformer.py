"""Losses of SimFormer (Chen et al., NeurIPS 2022): what classes without masks learn from, beside losses/maskformer.py.

L decoder layers, B images, Q proposals, K classes, D width, H W pixels, h w cells. Pairs of images: P pairs, their two
images side by side [P, 2, ...]; N points of an image, N x N pairs of points, both ways [P, 2, N, N]: the first point is
of the image at that place, the second one of the other image.
"""

from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F

from losses.maskformer import DICE, FOCAL, Targets, enlarge, mask_losses
from utils.labels import IGNORE

FLOOR = -2.9444  # logit of 0.05: what a pixel counts as novel at least
NOWHERE = -100.0  # logit of a target without a proposal
SMALL = 1e-5  # added to the number of images, as in the official code
NOISE = 0.1  # of the random choice of points: less than the step from outside a region to inside
QUEUE = 25  # steps that the balance of pairs looks back
ScoreKind = Literal["score", "logit", "positive_logit"]
Pairing = Literal["released", "paper"]
EVERY = 5  # of the pairs of points are counted, in rows and columns
BOUND = 0.01  # similarities are kept in [0.01, 0.99] where a logarithm is taken of them


def complementary_loss(
    mask_logits: torch.Tensor,
    targets: Targets,
    assigned: torch.Tensor,
    *,
    floor: float | None = FLOOR,
    focal: float = FOCAL,
    dice: float = DICE,
    unlabelled: bool = True,
    images: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """The proposals of classes without masks together cover what no mask of a class does; [L].

    Of each image with such a class: focal * focal loss + dice * dice loss of the pixelwise largest logit of those
    proposals, and of the constant `floor`, with the complement of all masks; padding is outside. Sum over these images
    / (their number + 1e-5), or / `images`. Unlabelled pixels belong to the complement (published), or count as outside.
    """
    size = targets.label.shape[-2:]
    counts = [all_ - masked for all_, masked in zip(targets.counts, targets.mask_counts, strict=True)]
    chosen = [number for number, count in enumerate(counts) if count]
    if not chosen:
        return mask_logits.new_zeros(len(mask_logits))
    image, proposal = targets.image[targets.unmasked], assigned[:, targets.unmasked]
    weak = torch.tensor(chosen).to(mask_logits.device, non_blocking=True)
    rest = not_base(targets, unlabelled).index_select(0, weak)
    bounds = [0, *accumulate(counts[number] for number in chosen)]
    losses = []
    for logits, assigned_to in zip(mask_logits, proposal, strict=True):
        large = enlarge(logits[image, assigned_to].float(), size)
        large = torch.where((assigned_to >= 0)[:, None, None], large, NOWHERE)
        union = torch.stack([large[i:j].amax(0) for i, j in zip(bounds, bounds[1:], strict=False)])
        union = union if floor is None else union.clamp(min=floor)
        parts = mask_losses(union, rest)
        losses.append((focal * parts[0] + dice * parts[1]).sum())
    return torch.stack(losses) / (len(chosen) + SMALL if images is None else images)


def not_base(targets: Targets, unlabelled: bool = True) -> torch.Tensor:
    """bool [B, H, W]: neither padding nor in the mask of a target; unlabelled pixels are in it, or not."""
    shape = targets.label.shape
    table = torch.zeros(shape[0], IGNORE + 1, dtype=torch.bool, device=targets.label.device)
    table[targets.image[targets.masked], targets.classes[targets.masked]] = True
    covered = table.gather(1, targets.label.flatten(1).long()).view(shape) | targets.padding
    return ~covered if unlabelled else ~covered & (targets.label != IGNORE)


def common_class(present: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """One of the classes that both images of a pair have, int64 [P], each as likely as the others; -1 without any.

    present bool [P, 2, K] (mask out what is not to be chosen), noise uniform in [0, 1) [P, K].
    """
    both = present.all(1)
    return torch.where(both.any(1), (both * (noise + 1)).argmax(1), -1)


def shares_class(present: torch.Tensor) -> torch.Tensor:
    """Whether both images of a pair have a class, bool [P]; present bool [P, 2, K]."""
    return present.all(1).any(1)


def draw_points(region: torch.Tensor, count: int, noise: torch.Tensor) -> torch.Tensor:
    """`count` different cells of each region bool [..., h, w], as int64 [..., count]: row * w + column.

    Those outside are taken when the region has too few. noise is uniform in [0, 1), [..., h, w].
    """
    return (region + NOISE * noise).flatten(-2).topk(count).indices


def draw_labelled(
    label: torch.Tensor,
    padding: torch.Tensor,
    is_base: torch.Tensor,
    common: torch.Tensor,
    count: int,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Cells [P, 2, count] for the similarity of pixels: 4/5 of the common class, else of base classes; the others from
    anywhere else but padding.

    label uint8 and padding bool [P, 2, h, w], is_base bool [256] by label, common [P] of `common_class`, noise uniform
    in [0, 1) [2, P, 2, h, w].
    """
    wanted = common[:, None, None, None]
    inside = torch.where(wanted >= 0, label == wanted, is_base[label.long()])
    near = int(0.8 * count)
    parts = draw_points(inside, near, noise[0]), draw_points(~inside & ~padding, count - near, noise[1])
    return torch.cat(parts, -1)


def at_points(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Values [P, 2, C, h, w] of cells [P, 2, N], as [P, 2, N, C]."""
    flat = values.flatten(3)
    return flat.gather(3, cells[:, :, None].expand(-1, -1, flat.shape[2], -1)).mT


def same_label(label: torch.Tensor) -> torch.Tensor:
    """Whether two points have the same label; label [P, 2, N] -> bool [P, 2, N, N]."""
    return label[..., :, None] == label.flip(1)[..., None, :]


def either(points: torch.Tensor) -> torch.Tensor:
    """Whether one of the two points is meant at least; bool [P, 2, N] -> [P, 2, N, N]."""
    return points[..., :, None] | points.flip(1)[..., None, :]


def new_queue() -> torch.Tensor:
    """The counts that `push_counts` starts with, [1, 2]."""
    return torch.ones(1, 2)


def count_pairs(same: torch.Tensor) -> torch.Tensor:
    """(equal pairs, others) among every fifth row and column of [P, 2, N, N], float [2]; sum it over processes."""
    few = same[..., ::EVERY, ::EVERY]
    equal = few.sum()
    return torch.stack([equal, few.numel() - equal]).float()


def push_counts(queue: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The queue [n, 2] with the counts of this step, and without those of more than 25 steps ago."""
    return torch.cat([queue.to(counts), counts[None]])[-QUEUE:]


def similarity_loss(
    logits: torch.Tensor,
    same: torch.Tensor,
    valid: torch.Tensor,
    queue: torch.Tensor,
    total: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """Balanced cross-entropy of whether two points have the same label, over the valid pairs; all are [P, 2, N, N].

    The weight of equal pairs is the share of the others in the queue [n, 2], and the other way round; this step's
    counts are in it. `total` replaces the number of valid pairs. It trains SimNet: detach the features it was given.
    """
    equal, other = queue.sum(0).to(logits.device, torch.float32)
    weight = torch.where(same, other, equal) / (equal + other)
    loss = F.binary_cross_entropy_with_logits(logits.float(), same.float(), reduction="none")
    return (weight * loss * valid).sum() / (valid.sum().clamp(min=SMALL) if total is None else total)


def point_scores(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, classes: torch.Tensor | None, kind: ScoreKind = "score"
) -> torch.Tensor:
    """What the network says of each point, [P, 2, N, C]: sum over proposals of class value times sigmoid of the mask.

    class_logits [P, 2, Q, K + 1], mask_logits [P, 2, N, Q] at the points; of `classes` [C], or of all K. The class
    value is its probability (score), its logit, or the logit's positive part.
    """
    if kind == "score":
        value = class_logits.float().softmax(-1)
    else:
        value = class_logits.float().relu() if kind == "positive_logit" else class_logits.float()
    value = value[..., :-1] if classes is None else value[..., classes]
    return mask_logits.float().sigmoid() @ value


def score_similarity(scores: torch.Tensor, pairing: Pairing = "released") -> torch.Tensor:
    """Positive part of the cosine of the scores of two points, [P, 2, N, C] -> [P, 2, N, N].

    released  both points are of the same image, though the teacher compares two images (published code)
    paper     the second point is of the other image, as the teacher has it
    """
    unit = F.normalize(scores, dim=-1, eps=1e-8)
    return (unit @ (unit if pairing == "released" else unit.flip(1)).mT).relu()


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    shares: torch.Tensor,
    function: str = "ce",
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """The similarity of scores learns from that of SimNet, both [P, 2, N, N]; a mean over pairs of images, 0 for those
    that do not share a novel class (`shares` bool [P]).

    ce   -t log s - (1 - t) log(1 - s), both kept in [0.01, 0.99]
    cce  -relu(t - 1/2) log(1 + s) - relu(1/2 - t) log(2 - s)
    bX   -(t - X) s, X a number

    Mean over the pairs of points, or over those of `valid` [P, 2, N, N].
    """
    if function == "ce":
        t, s = (side.clamp(BOUND, 1 - BOUND) for side in (teacher, student))
        loss = -t * s.log() - (1 - t) * (1 - s).log()
    elif function == "cce":
        loss = -(teacher - 0.5).relu() * (1 + student).log() - (0.5 - teacher).relu() * (2 - student).log()
    else:
        loss = -(teacher - float(function.removeprefix("b"))) * student
    if valid is None:
        mean = loss.mean((1, 2, 3))
    else:
        mean = (loss * valid).sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=SMALL)
    return (mean * shares).mean()
