"""SimNet of SimFormer (Chen et al., NeurIPS 2022): whether two pixels are of the same class, from their embeddings.

D width of an embedding, C width inside.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two layers of width C with BatchNorm, or without, and ReLU, beside the way around them: a layer, `sqz`, in the
    first block.
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
        """What follows the first layer."""
        x = self.bn1(x).relu()
        return self.bn2(self.layer2(x)).relu()


class SimNet(nn.Module):
    """Three residual blocks on two embeddings side by side; the order of the two matters.

    BatchNorm takes the statistics of all pairs of a call in training mode, as a teacher too.
    """

    def __init__(self, embedding: int = 256, width: int = 256, blocks: int = 3, norm: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width if i else 2 * embedding, width, norm, i == 0) for i in range(blocks))
        self.out_head = nn.Linear(width, 2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Logits [...] that first [..., D] and second [..., D] are of the same class; the two broadcast.

        The first layer acts on each side before they meet: N x M pairs cost N + M rows of it, and no pair is stored
        with its 2 D values. The sigmoid is the official softmax over "different" and "same".
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
        """Logits [P, 2, N, N] of points [P, 2, N, D] of two images: each with each of the other image, both ways."""
        return self(points[..., :, None, :], points.flip(1)[..., None, :, :])
