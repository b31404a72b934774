"""SimNet of SimFormer (Chen et al., NeurIPS 2022) classifies pairs of pixel embeddings as same or different class.

D width of an embedding, C width inside.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Residual block of two linear layers of width C, each with optional BatchNorm and ReLU.

    The shortcut is the identity; in the first block it is a linear layer, `sqz`, with ReLU.
    """

    def __init__(self, inputs: int, width: int, norm: bool = True, first: bool = False):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.bn1, self.bn2 = (nn.BatchNorm1d(width) if norm else nn.Identity() for _ in range(2))
        self.sqz = nn.Linear(inputs, width) if first else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs] -> [N, C]."""
        around = x if self.sqz is None else self.sqz(x).relu()
        return around + self.branch(self.layer1(x))  # not in place: the official code overwrites what autograd needs

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The residual branch after the first layer."""
        x = self.bn1(x).relu()
        return self.bn2(self.layer2(x)).relu()


class SimNet(nn.Module):
    """Residual blocks on two concatenated embeddings; the order of the two matters.

    In training mode BatchNorm uses the statistics of all pairs of a call.
    """

    def __init__(self, embedding: int = 256, width: int = 256, blocks: int = 3, norm: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width if i else 2 * embedding, width, norm, i == 0) for i in range(blocks))
        self.out_head = nn.Linear(width, 2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Logits [...] that first [..., D] and second [..., D] are of the same class; the two broadcast.

        The first layer is applied to each side separately, so N x M pairs cost N + M rows, and no concatenated pair is
        stored. The sigmoid of the logit equals the official softmax over "different" and "same".
        """
        block = self.blocks[0]
        assert isinstance(block, Block) and block.sqz is not None
        weight = torch.cat([block.sqz.weight, block.layer1.weight])
        bias = torch.cat([block.sqz.bias, block.layer1.bias])
        left, right = weight.split([first.shape[-1], second.shape[-1]], dim=1)
        both = F.linear(first, left, bias) + F.linear(second, right)
        around, inside = both.flatten(0, -2).chunk(2, dim=1)
        x = around.relu() + block.branch(inside)
        for rest in self.blocks[1:]:
            x = rest(x)
        different, same = self.out_head(x).unbind(1)
        return (same - different).view(both.shape[:-1])

    def pairs(self, points: torch.Tensor) -> torch.Tensor:
        """Logits [P, 2, N, N] of points [P, 2, N, D] of two images: all cross-image pairs, in both orders."""
        return self(points[..., :, None, :], points.flip(1)[..., None, :, :])
