"""Losses of MaskContrast (Van Gansbeke et al., ICCV 2021, sec. 3).

B images of this process, D embedding, K bank, R = B + K references, H W pixels, N pixels of an image.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

EPSILON = 1e-12  # least norm, as in torch.nn.functional.normalize


class Contrast(NamedTuple):
    loss: torch.Tensor
    top1: torch.Tensor  # share of object pixels whose own prototype is the nearest reference, no gradient
    top5: torch.Tensor  # or among the nearest five


def mean_directions(embedding: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean direction of the pixels of each mask: L2norm(sum_p s_p L2norm(k_p)), float32.

    embedding [B, D, H, W], mask [B, H, W] of 0 and 1 -> [B, D]; zeros where a mask is empty.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        directions = F.normalize(embedding.float(), dim=1)
        return F.normalize(torch.einsum("bdhw,bhw->bd", directions, mask.float()), dim=1)


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """Weight of a class with a share p of the pixels: 1 / ln(1.02 + p) (ENet, Paszke et al., 2016). [B] -> [B]."""
    return 1 / torch.log(1.02 + counts / counts.sum().clamp(min=1))


def pixel_to_prototype(
    embedding: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor, bank: torch.Tensor, temperature: float
) -> Contrast:
    """Cross-entropy of object pixels over all references, the class of a pixel being its image (eq. 3).

    L = sum_i w_y(i) nll_i / sum_i w_y(i) over the pixels i inside the masks, with logits L2norm(q_i) . reference / T
    and the ENet weights of the masks' sizes, which the paper does not mention. Gradient to the embedding alone.

    embedding [B, D, H, W], not normalised; mask [B, H, W] of 0 and 1; prototypes [B, D]; bank [D, K]. 0 without pixels.
    """
    references = torch.cat([prototypes.float(), bank.T.float()])
    with torch.autocast(embedding.device.type, enabled=False):
        return Contrast(*_PixelToPrototype.apply(embedding, mask, references, temperature))


def pick(inside: torch.Tensor) -> torch.Tensor | slice:
    """Index of the pixels to look at, of a mask [N]. All of them on a GPU, where the others weigh 0: it would have to
    tell how many are inside before work could go on.
    """
    return slice(None) if inside.is_cuda else inside.nonzero()[:, 0]


class _PixelToPrototype(torch.autograd.Function):
    """The loss with its gradient, an image at a time: the [B N, R] logits of all pixels never exist together.

    The weight of a pixel depends on the masks alone, so that the gradient is known as soon as its logits are.
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
            q, here = embedding[image].flatten(1).T[picked].float(), inside[image, picked]  # [N, D], [N]
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
            slope = (slope - q * (q * slope).sum(1, keepdim=True)) / length  # through the normalisation
            gradient[image].flatten(1).T[picked] = slope.to(gradient.dtype)
        ctx.save_for_backward(gradient)
        top1, top5 = hits / counts.sum().clamp(min=1)
        ctx.mark_non_differentiable(top1, top5)
        return loss, top1, top5

    @staticmethod
    def backward(ctx, upstream, *_):
        return ctx.saved_tensors[0] * upstream, None, None, None


def balanced_bce(logit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in which object and background weigh by the other's share of the batch's pixels.

    With p the share of ones: mean of (1 - p) softplus(-a) on ones and p softplus(a) on zeros. logit, mask [B, H, W].
    """
    truth = mask.float()
    share = truth.mean()
    weight = truth * (1 - share) + (1 - truth) * share
    return (weight * F.binary_cross_entropy_with_logits(logit.float(), truth, reduction="none")).mean()
