"""The return type of every network's forward."""

from typing import NamedTuple

import torch


class Output(NamedTuple):
    """B batch, C outputs, H W pixels of the input, D width.

    logits     [B, C, H, W], bilinearly up-sampled to the input; C is 1 for a saliency head
    embedding  what the last layer reads, [B, D, h, w] feature cells; of a network trained for its embedding this very
               one, [B, D, H, W]
    """

    logits: torch.Tensor
    embedding: torch.Tensor
