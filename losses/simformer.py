"""Losses of SimFormer (Chen et al., NeurIPS 2022) in addition to those of losses/maskformer.py.

CompLoss, SimLoss and DistLoss are the paper's names (fig. 2). L decoder layers, B images, Q proposals, K classes, C
of them, H W pixels, h w cells. P pairs of images are stacked as [P, 2, ...]; N points per image give N x N pairs of
points in both directions, [P, 2, N, N]: entry [p, b, i, j] pairs point i of image b with point j of the other image.
"""

from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F

from losses.maskformer import DICE, FOCAL, Targets, enlarge, mask_losses, mask_losses_plain
from utils.labels import IGNORE

FLOOR = -2.9444  # logit of 0.05: lower bound of a pixel's novel score in CompLoss
NOWHERE = -100.0  # logit of a target without a proposal
SMALL = 1e-5  # added to denominators, as in the released code
NOISE = 0.1  # of the random choice of points; below 1, so that points inside a region come first
QUEUE = 25  # steps over which SimLoss balances equal and different pairs
ScoreKind = Literal["score", "logit", "positive_logit"]
Pairing = Literal["released", "paper"]
EVERY = 5  # `count_pairs` counts every fifth row and column
BOUND = 0.01  # similarities are clamped to [0.01, 0.99] before a logarithm


def complementary_loss_plain(
    mask_logits: torch.Tensor,
    targets: Targets,
    assigned: torch.Tensor,
    *,
    floor: float | None = FLOOR,
    focal: float = FOCAL,
    dice: float = DICE,
) -> torch.Tensor:
    """CompLoss: sum_b [ focal * focal loss + dice * dice loss ](U_b, G_b) / (n + 1e-5) over the n images with novel
    classes; [L].

    U_b is the pixelwise maximum of the logits of the proposals assigned to the novel classes of image b and of the
    constant `floor`; G_b = 1 - max of the base masks, 0 in padding. Unlabelled pixels belong to G_b.

    mask_logits [L, B, Q, h, w], up-sampled bilinearly to the label; assigned [L, T] of `maskformer.match`. Every
    novel target needs a proposal.
    """
    total, novel = mask_logits.new_zeros(len(mask_logits)), targets.image[targets.unmasked]
    for image in novel.unique():
        base = targets.classes[targets.masked[targets.image[targets.masked] == image]]
        rest = ~(targets.label[image] == base[:, None, None]).any(0) & ~targets.padding[image]  # G
        for layer, proposals in enumerate(assigned[:, targets.unmasked[novel == image]]):
            logits = enlarge(mask_logits[layer, image, proposals], rest.shape)
            union = logits.amax(0) if floor is None else logits.amax(0).clamp(min=floor)  # U
            parts = mask_losses_plain(union[None], rest[None])
            total[layer] = total[layer] + focal * parts[0][0] + dice * parts[1][0]
    return total / (len(novel.unique()) + SMALL)


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
    """`complementary_loss_plain` in float32, all images of a layer at once, without reading a value on the host; [L].

    `unlabelled=False` takes unlabelled pixels out of G. `images` replaces n + 1e-5. A novel target without a proposal
    counts as a proposal with logit NOWHERE.
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
    """G of CompLoss, bool [B, H, W]: pixels outside the padding and all masks; with or without the unlabelled ones."""
    shape = targets.label.shape
    table = torch.zeros(shape[0], IGNORE + 1, dtype=torch.bool, device=targets.label.device)
    table[targets.image[targets.masked], targets.classes[targets.masked]] = True
    covered = table.gather(1, targets.label.flatten(1).long()).view(shape) | targets.padding
    return ~covered if unlabelled else ~covered & (targets.label != IGNORE)


def common_class(present: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A class that both images of a pair contain, drawn uniformly, int64 [P]; -1 if there is none.

    present bool [P, 2, K], False for classes that must not be drawn; noise [P, K], uniform in [0, 1).
    """
    both = present.all(1)
    return torch.where(both.any(1), (both * (noise + 1)).argmax(1), -1)


def shares_class(present: torch.Tensor) -> torch.Tensor:
    """Whether both images of a pair have a class in common, bool [P]; present bool [P, 2, K]."""
    return present.all(1).any(1)


def draw_points(region: torch.Tensor, count: int, noise: torch.Tensor) -> torch.Tensor:
    """Draws `count` different cells of each region, from outside it only if it has fewer cells.

    region bool [..., h, w], noise [..., h, w] uniform in [0, 1) -> indices row * w + column, int64 [..., count].
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
    """Points of SimLoss, int64 [P, 2, count]: 4/5 from the common class, or from all base classes if there is no common
    class; 1/5 from the other cells outside the padding.

    label uint8 and padding bool [P, 2, h, w], is_base bool [256] by label value, common [P] of `common_class`, noise
    [2, P, 2, h, w] uniform in [0, 1).
    """
    wanted = common[:, None, None, None]
    inside = torch.where(wanted >= 0, label == wanted, is_base[label.long()])
    near = int(0.8 * count)
    parts = draw_points(inside, near, noise[0]), draw_points(~inside & ~padding, count - near, noise[1])
    return torch.cat(parts, -1)


def at_points(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Gathers values [P, 2, C, h, w] at cells [P, 2, N] -> [P, 2, N, C]."""
    flat = values.flatten(3)
    return flat.gather(3, cells[:, :, None].expand(-1, -1, flat.shape[2], -1)).mT


def same_label(label: torch.Tensor) -> torch.Tensor:
    """Whether the two points of a pair have the same label; label [P, 2, N] -> bool [P, 2, N, N]."""
    return label[..., :, None] == label.flip(1)[..., None, :]


def either(points: torch.Tensor) -> torch.Tensor:
    """Whether at least one of the two points of a pair is True; bool [P, 2, N] -> [P, 2, N, N]."""
    return points[..., :, None] | points.flip(1)[..., None, :]


def new_queue() -> torch.Tensor:
    """The initial queue of `push_counts`: one equal and one different pair, [1, 2]."""
    return torch.ones(1, 2)


def count_pairs(same: torch.Tensor) -> torch.Tensor:
    """(equal pairs, different pairs) in every fifth row and column of bool [P, 2, N, N], float [2].

    With several processes, sum the counts over them before `push_counts`.
    """
    few = same[..., ::EVERY, ::EVERY]
    equal = few.sum()
    return torch.stack([equal, few.numel() - equal]).float()


def push_counts(queue: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The queue [n, 2] with the counts [2] of this step appended, cut to the last 25 steps."""
    return torch.cat([queue.to(counts), counts[None]])[-QUEUE:]


def similarity_loss(
    logits: torch.Tensor,
    same: torch.Tensor,
    valid: torch.Tensor,
    queue: torch.Tensor,
    total: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """SimLoss: class-balanced binary cross-entropy of SimNet's logits, mean over the valid pairs.

    The target of a pair is whether its points have the same label; a pair is valid if at least one point is of a base
    class. Equal pairs have the weight different / (equal + different) and different pairs equal / (equal + different),
    with the counts summed over the queue, which includes this step. Detach the features that SimNet reads: SimLoss
    trains SimNet only.

    logits float, same bool, valid bool [P, 2, N, N]; queue [n, 2]. `total` replaces the number of valid pairs.
    """
    equal, other = queue.sum(0).to(logits.device, torch.float32)
    weight = torch.where(same, other, equal) / (equal + other)
    loss = F.binary_cross_entropy_with_logits(logits.float(), same.float(), reduction="none")
    return (weight * loss * valid).sum() / (valid.sum().clamp(min=SMALL) if total is None else total)


def point_scores(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, classes: torch.Tensor | None, kind: ScoreKind = "score"
) -> torch.Tensor:
    """Class scores of each point: sum over proposals q of v_q(c) sigmoid(mask_q), [P, 2, N, C].

    v_q is the class probability ("score"), the class logit ("logit") or its positive part ("positive_logit").

    class_logits [P, 2, Q, K + 1], mask_logits [P, 2, N, Q] at the points; `classes` [C], or None for all K.
    """
    if kind == "score":
        value = class_logits.float().softmax(-1)
    else:
        value = class_logits.float().relu() if kind == "positive_logit" else class_logits.float()
    value = value[..., :-1] if classes is None else value[..., classes]
    return mask_logits.float().sigmoid() @ value


def score_similarity(scores: torch.Tensor, pairing: Pairing = "released") -> torch.Tensor:
    """Student similarity of DistLoss: relu of the cosine of the scores of two points, [P, 2, N, C] -> [P, 2, N, N].

    released  both points come from the same image, although the teacher pairs two images (released code)
    paper     the second point comes from the other image, as for the teacher
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
    """DistLoss between the student's similarity s and SimNet's t, mean over pairs of images; 0 for a pair of images
    without a common novel class.

    ce   -t log s - (1 - t) log(1 - s), s and t clamped to [0.01, 0.99]
    cce  -relu(t - 1/2) log(1 + s) - relu(1/2 - t) log(2 - s)
    bX   -(t - X) s, X a number

    student, teacher [P, 2, N, N]; shares bool [P], whether the images have a common novel class; valid bool
    [P, 2, N, N], the pairs of points that count, None for all.
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
