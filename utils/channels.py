"""The largest channel of each pixel. B batch, C channels, H W pixels.

On a CPU with channels-last memory, numpy's arg-max is faster than torch's because it uses vector instructions.
"""

import torch

PART = 2**18  # logits per block, which fit into the cache of a core


def largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(value, channel) of the largest logit [B, C, H, W], both [B, H, W]; the first channel wins a tie."""
    last = logits.detach().movedim(1, -1)
    by_numpy = logits.device.type == "cpu" and logits.dtype == torch.float32 and last.stride(-1) == 1
    if not by_numpy or torch.compiler.is_exporting():
        value, channel = logits.max(1)
        return value, channel
    channel = torch.from_numpy(last.numpy().argmax(-1))
    return logits.gather(1, channel[:, None])[:, 0], channel


def most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(probability, channel) of the largest logit: softmax(1).max(1) up to rounding, in less memory."""
    channels_last = logits.is_contiguous(memory_format=torch.channels_last)
    if logits.device.type != "cpu" or not channels_last:
        value, channel = logits.float().softmax(1).max(1)
        return value, channel
    _, channel = largest(logits)
    rows = logits.movedim(1, -1).flatten(0, -2).split(max(1, PART // logits.shape[1]))
    places = channel.flatten().split(len(rows[0]))
    found = [row.float().softmax(1).gather(1, p[:, None])[:, 0] for row, p in zip(rows, places, strict=True)]
    return torch.cat(found).view_as(channel), channel
