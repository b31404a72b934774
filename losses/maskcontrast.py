"""Losses of MaskContrast (Van Gansbeke et al., ICCV 2021, sec. 3).

B images of this process, D embedding dimensions, K prototypes in the memory bank, R = B + K references, H W pixels,
N pixels inside the masks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

EPSILON = 1e-12  # lower bound of a norm, as in torch.nn.functional.normalize


class Contrast(NamedTuple):
    """The loss, and the share of object pixels whose own prototype is the nearest reference or among the nearest five.

    Both shares are without gradient.
    """

    loss: torch.Tensor
    top1: torch.Tensor
    top5: torch.Tensor


def mean_directions(embedding: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Prototype of each object (sec. 3): L2norm(sum_p s_p L2norm(k_p)) over its pixels p, in float32.

    embedding [B, D, H, W], mask s [B, H, W] of 0 and 1 -> [B, D]; zeros where a mask is empty.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        directions = F.normalize(embedding.float(), dim=1)
        return F.normalize(torch.einsum("bdhw,bhw->bd", directions, mask.float()), dim=1)


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """1 / ln(1.02 + p) for a class with the share p of all pixels (ENet, Paszke et al., 2016). [B] -> [B]."""
    return 1 / torch.log(1.02 + counts / counts.sum().clamp(min=1))


def pixel_to_prototype_plain(
    embedding: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor, bank: torch.Tensor, temperature: float
) -> Contrast:
    """-sum_i w_y(i) log softmax(q_i . R / T)[y(i)] / sum_i w_y(i) over all object pixels i (eq. 3); 0 without any.

    The class y(i) of a pixel is its image, its positive reference that image's prototype, its negatives the other
    prototypes and the bank. The weights w (`balanced_weights` of the mask sizes) are those of the released code; eq. 3
    has none.

    embedding [B, D, H, W], not normalised; mask [B, H, W] of 0 and 1; prototypes [B, D]; bank [D, K].
    """
    inside = mask > 0
    q = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)[inside]  # [N, D]
    own = torch.arange(len(mask), device=mask.device)[:, None, None].expand_as(mask)[inside]  # y(i)
    log_share = (q @ torch.cat([prototypes, bank.T]).T / temperature).log_softmax(1)  # [N, R]
    log_own = log_share.gather(1, own[:, None])
    weight = balanced_weights(inside.flatten(1).sum(1).to(q.dtype))[own]
    rank = (log_share > log_own).sum(1)
    top1, top5 = ((rank < k).sum() / max(len(rank), 1) for k in (1, 5))
    return Contrast(-(weight * log_own[:, 0]).sum() / weight.sum().clamp(min=EPSILON), top1, top5)


def pixel_to_prototype(
    embedding: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor, bank: torch.Tensor, temperature: float
) -> Contrast:
    """`pixel_to_prototype_plain` in float32, one image at a time; only the embedding receives a gradient."""
    references = torch.cat([prototypes.float(), bank.T.float()])
    with torch.autocast(embedding.device.type, enabled=False):
        return Contrast(*_PixelToPrototype.apply(embedding, mask, references, temperature))


def pick(inside: torch.Tensor) -> torch.Tensor | slice:
    """Index of the pixels inside a mask [HW]; on a GPU all pixels, of which those outside have weight 0.

    Counting the pixels inside would make the host wait for the GPU.
    """
    return slice(None) if inside.is_cuda else inside.nonzero()[:, 0]


class _PixelToPrototype(torch.autograd.Function):
    """Loss and gradient in one pass over the images, so that the [N, R] logits of all images never exist at once.

    The weights depend on the masks only: the gradient of an image follows from its own logits.
    """

    @staticmethod
    def forward(ctx, embedding, mask, references, temperature):
        inside = mask.flatten(1).float()
        counts = inside.sum(1)
        weights = balanced_weights(counts)
        weights = weights / (weights * counts).sum().clamp(min=EPSILON)
        gradient = torch.zeros_like(embedding)
        loss, hits = torch.zeros_like(weights[0]), torch.zeros(2, device=mask.device)
        for image in range(len(embedding)):
            picked = pick(inside[image])
            q, here = embedding[image].flatten(1).T[picked].float(), inside[image, picked]  # [pixels, D], [pixels]
            length = q.norm(dim=1, keepdim=True).clamp(min=EPSILON)
            q = q / length
            log_share = (q @ references.T / temperature).log_softmax(1)
            own = log_share[:, image].clone()
            better = (log_share > own[:, None]).sum(1)
            hits += torch.stack([(here * (better < k)).sum() for k in (1, 5)])
            loss -= weights[image] * (here * own).sum()
            residual = log_share.exp_()
            residual[:, image] -= 1
            slope = residual @ references * (weights[image] / temperature * here)[:, None]
            slope = (slope - q * (q * slope).sum(1, keepdim=True)) / length  # gradient of the normalisation
            gradient[image].flatten(1).T[picked] = slope.to(gradient.dtype)
        ctx.save_for_backward(gradient)
        top1, top5 = hits / counts.sum().clamp(min=1)
        ctx.mark_non_differentiable(top1, top5)
        return loss, top1, top5

    @staticmethod
    def backward(ctx, upstream, *_):
        return ctx.saved_tensors[0] * upstream, None, None, None


def balanced_bce(logit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Balanced binary cross-entropy of the saliency logit a (HED, Xie and Tu, ICCV 2015, eq. 2), mean over pixels.

    (1 - p) softplus(-a) inside the masks and p softplus(a) outside, p the share of pixels inside. logit, mask
    [B, H, W].
    """
    truth = mask.float()
    share = truth.mean()
    weight = truth * (1 - share) + (1 - truth) * share
    return (weight * F.binary_cross_entropy_with_logits(logit.float(), truth, reduction="none")).mean()
