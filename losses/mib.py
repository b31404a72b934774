"""Losses of MiB (Cermelli et al., CVPR 2020), unbiased where background hides other classes.

B images, H W pixels; logits [B, K, H, W] of K classes, background first; O of them are old, the last K - O new.
"""

import torch
import torch.nn.functional as F

from utils.labels import IGNORE


def unbiased_cross_entropy_plain(logits: torch.Tensor, label: torch.Tensor, num_old: int) -> torch.Tensor:
    """-1/|I| sum_i log q~(i, y_i) over all pixels I (eq. 3); q~ of background is the sum of q over the old classes.

    Background is one of the `num_old` old classes. Ignored pixels count in |I| and add 0, as in the released code.

    logits [B, K, H, W], label [B, H, W].
    """
    q = logits.softmax(1)
    unbiased = torch.cat([q[:, :num_old].sum(1, keepdim=True), q[:, num_old:]], dim=1)  # background, new classes
    valid = label != IGNORE
    own = torch.where(valid & (label >= num_old), label.long() - num_old + 1, 0)
    return -(unbiased.gather(1, own[:, None])[:, 0].log() * valid).mean()


def unbiased_cross_entropy(logits: torch.Tensor, label: torch.Tensor, num_old: int) -> torch.Tensor:
    """`unbiased_cross_entropy_plain` in float32, by log-sum-exp."""
    total = logits.float().logsumexp(1, keepdim=True)
    background = logits[:, :num_old].float().logsumexp(1, keepdim=True) - total
    old = torch.zeros_like(logits[:, 1:num_old], dtype=torch.float32)  # never a target
    log_prob = torch.cat([background, old, logits[:, num_old:].float() - total], dim=1)
    label = label.long()
    target = torch.where(label < num_old, 0, label)
    return F.nll_loss(log_prob, target, ignore_index=IGNORE, reduction="sum") / label.numel()


def unbiased_distillation_plain(logits: torch.Tensor, old_logits: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """-1/|I| sum_i 1/O sum_c q_old(i, c) log q^(i, c) (eq. 8); q^ of background sums q over it and the new classes.

    The 1/O is that of the released code. old_logits [B, O, H, W] come from the network of the previous step and are
    scaled by `alpha`.
    """
    num_old, q = old_logits.shape[1], logits.softmax(1)
    unbiased = torch.cat([q[:, :1] + q[:, num_old:].sum(1, keepdim=True), q[:, 1:num_old]], dim=1)
    return -((alpha * old_logits).softmax(1) * unbiased.log()).mean()


def unbiased_distillation(logits: torch.Tensor, old_logits: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """`unbiased_distillation_plain` in float32, by log-sum-exp."""
    num_old = old_logits.shape[1]
    logits = logits.float()
    total = logits.logsumexp(1, keepdim=True)
    background = torch.cat([logits[:, :1], logits[:, num_old:]], dim=1).logsumexp(1, keepdim=True) - total
    log_prob = torch.cat([background, logits[:, 1:num_old] - total], dim=1)
    wanted = (alpha * old_logits.float()).softmax(1)
    return -(wanted * log_prob).mean(1).mean()
