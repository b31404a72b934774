"""Fine-tuning with generalised cross-entropy on the pseudo-labels (Zhang and Sabuncu, NeurIPS 2018)."""

import torch

from finetune_novel import BasicRecipe
from losses.cross_entropy import cross_entropy
from utils.labels import IGNORE


class GceRecipe(BasicRecipe):
    """L = ( CE(f(x_base), y_base) + GCE_q(f(x_novel), y_pseudo) ) / 2."""

    def step(self, batch: dict, epoch: int) -> dict:
        base, novel = batch["base"], batch["novel"]
        images = [self.network.normalize(source["image"]) for source in (base, novel)]
        on_base, on_novel = self.network.forward_sources(images)
        return {
            "base": cross_entropy(on_base.logits, base["label"]) / 2,
            "novel": generalized_cross_entropy(on_novel.logits, novel["pseudo"], self.own.q) / 2,
        }


def generalized_cross_entropy(logits: torch.Tensor, label: torch.Tensor, q: float) -> torch.Tensor:
    """Mean of (1 - p^q) / q over the labelled pixels, p the probability of the label (eq. 6); 0 if there are none.

    q in (0, 1]: cross-entropy in the limit 0, mean absolute error at 1. logits [B, C, H, W], label integers [B, H, W],
    255 is ignored.
    """
    labelled = label != IGNORE
    target = torch.where(labelled, label, 0).long()
    prob = logits.float().softmax(1).gather(1, target[:, None])[:, 0]  # [B, H, W]
    loss = (1 - prob.clamp_min(1e-7) ** q) / q  # the clamp keeps the gradient finite at p = 0
    return (loss * labelled).sum() / labelled.sum().clamp_min(1)
