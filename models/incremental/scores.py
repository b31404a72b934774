"""From the logits of all heads to scores and train ids. B batch, C channels of all heads, H W pixels."""

import torch

from utils.channels import largest

SATURATED = 8.0  # above it sigmoids of logits that differ by a ten-thousandth may be the same float32


def class_scores(logits: torch.Tensor, loss: str) -> torch.Tensor:
    """Score of each channel [B, C, H, W]: sigmoid for networks trained with binary cross-entropy, else softmax."""
    return logits.float().sigmoid() if loss == "bce" else logits.float().softmax(1)


def best_channel(logits: torch.Tensor, loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(score, channel) of the largest `class_scores`, both [B, H, W].

    A CPU computes the sigmoid of the largest logit only, unless it is so large that sigmoids round to the same number;
    then the first of the equal channels wins, as in the maximum over all sigmoids.
    """
    if loss != "bce" or logits.device.type != "cpu" or torch.compiler.is_exporting():
        score, channel = class_scores(logits, loss).max(1)
        return score, channel
    value, channel = largest(logits)
    score = value.float().sigmoid()
    tied = value > SATURATED
    if tied.any():
        score[tied], channel[tied] = logits.movedim(1, -1)[tied].float().sigmoid().max(1)
    return score, channel


def predicted_ids(logits: torch.Tensor, unknown: bool, loss: str) -> torch.Tensor:
    """Train ids [B, H, W] of logits [B, C, H, W]; with `unknown`, the score of channel 0 is added to background's."""
    score, channel = best_channel(logits, loss) if loss == "bce" else largest(logits)  # softmax keeps the order
    if not unknown:
        return channel
    both = logits[:, :2].float()
    background = both.sigmoid().sum(1) if loss == "bce" else both.logsumexp(1)
    # if one of the two is the best channel, their sum is not smaller
    return torch.where((channel < 2) | (background >= score), 0, channel - 1)
