"""The two decoders of MaskFormer (Cheng et al., NeurIPS 2021): pixels by a feature pyramid, queries by a transformer.

B images, Q queries, D width, h w feature cells, N memory cells. Names of weights are those of the official files.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class ConvNorm(nn.Conv2d):
    """Convolution and GroupNorm; keys: weight, norm.*"""

    def __init__(self, inputs: int, width: int, kernel: int):
        super().__init__(inputs, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(math.gcd(32, width), width)
        nn.init.kaiming_uniform_(self.weight, a=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


class PixelDecoder(nn.Module):
    """Feature pyramid: each level of the backbone is added to the up-sampled coarser one; level 1 is the finest.

    channels: of the levels, from fine to coarse.
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        last = len(channels)
        self.finer = list(range(last - 1, 0, -1))
        for level in self.finer:
            setattr(self, f"adapter_{level}", ConvNorm(channels[level - 1], width, 1))
            setattr(self, f"layer_{level}", ConvNorm(width, width, 3))
        self.top = f"layer_{last}"
        setattr(self, self.top, ConvNorm(channels[-1], width, 3))
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)
        xavier(self.mask_features)

    def forward(self, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pixel embeddings [B, D, h, w] at the size of the finest level."""
        y = getattr(self, self.top)(stages[-1]).relu()
        for level in self.finer:
            lateral = getattr(self, f"adapter_{level}")(stages[level - 1])
            y = lateral + F.interpolate(y, size=lateral.shape[-2:], mode="nearest")
            y = getattr(self, f"layer_{level}")(y).relu()
        return self.mask_features(y)


class DecoderLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the image, feed-forward network, each with post-norm."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, query: torch.Tensor, memory: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        """x, query [B, Q, D]; memory [B, N, D]; its position [1, N, D] is added to the keys only."""
        at = x + query
        x = self.norm1(x + self.dropout(self.self_attn(at, at, x, need_weights=False)[0]))
        seen = self.multihead_attn(x + query, memory + position, memory, need_weights=False)[0]
        x = self.norm2(x + self.dropout(seen))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class QueryDecoder(nn.Module):
    """Decoder layers with one shared output norm. There is no encoder, and padded pixels are not masked."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, query: torch.Tensor, memory: torch.Tensor, every_layer: bool) -> torch.Tensor:
        """query [Q, D], memory [B, D, h, w] -> [L, B, Q, D] for all layers, or for the last one (L = 1)."""
        position = sine_position(memory.shape[-2], memory.shape[-1], memory.shape[1], memory.device).to(memory.dtype)
        cells, places = memory.flatten(2).mT, position.flatten(1).mT[None]
        query = query.expand(len(memory), -1, -1)
        x, outputs = torch.zeros_like(query), []
        for layer in self.layers:
            x = layer(x, query, cells, places)
            outputs.append(x)
        return self.norm(torch.stack(outputs if every_layer else outputs[-1:]))


class MaskEmbedding(nn.Module):
    """Three linear layers: query -> mask embedding."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def sine_position(height: int, width: int, channels: int, device: torch.device | None = None) -> torch.Tensor:
    """Position encoding [channels, height, width]: alternating sines and cosines, of the row, then of the column.

    Rows are numbered from 1 and scaled so that the last one is 2 pi; columns likewise.
    """
    half = channels // 2
    place = torch.arange(half, device=device)
    frequency = 10000.0 ** (2 * (place // 2) / half)

    def axis(length: int) -> torch.Tensor:
        turn = torch.arange(1, length + 1, device=device) / (length + 1e-6) * 2 * math.pi
        angle = turn[:, None] / frequency
        return torch.where(place % 2 == 0, angle.sin(), angle.cos()).T  # [half, length]

    rows, columns = axis(height)[:, :, None], axis(width)[:, None, :]
    return torch.cat([rows.expand(-1, -1, width), columns.expand(-1, height, -1)])


def xavier(layer: nn.Conv2d) -> None:
    """Caffe2's Xavier initialisation: uniform with fan-in, bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
