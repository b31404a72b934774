"""Losses of MiB (Cermelli et al., CVPR 2020), unbiased where background hides other classes.

B batch, H W pixels; logits [B, K, H, W] of K classes, background first; O of them are old, the last K - O new.
"""

import torch
import torch.nn.functional as F

from utils.labels import IGNORE


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
