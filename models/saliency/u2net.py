"""U²-Net (Qin et al., Pattern Recognition 2020), a U of U-blocks, under the key names of the authors' weights files."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

# (name, depth, inner channels, output channels, dilated) of paper figure 5; a decoder stage reads two maps
U2NET = (
    ("stage1", 7, 32, 64, False),
    ("stage2", 6, 32, 128, False),
    ("stage3", 5, 64, 256, False),
    ("stage4", 4, 128, 512, False),
    ("stage5", 4, 256, 512, True),
    ("stage6", 4, 256, 512, True),
    ("stage5d", 4, 256, 512, True),
    ("stage4d", 4, 128, 256, False),
    ("stage3d", 5, 64, 128, False),
    ("stage2d", 6, 32, 64, False),
    ("stage1d", 7, 16, 64, False),
)
U2NETP = tuple((name, depth, 16, 64, dilated) for name, depth, _, _, dilated in U2NET)  # the 4.7 MB network


class SaliencyLogits(NamedTuple):
    """`logits` [B, 1, H, W] of the saliency map; `sides`: those of the supervised stages, finest first, same shape."""

    logits: torch.Tensor
    sides: list[torch.Tensor]


class ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU. x [B, D, H, W] -> [B, out, H, W]."""

    def __init__(self, channels: int, out: int, dilation: int = 1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)))


class RSU(nn.ModuleDict):
    """Residual U-block: a U-Net of `depth` levels added to its input. x [B, D, H, W] -> [B, out, H, W].

    Levels halve the map, but for the last, which dilates by 2; a `dilated` block (RSU-4F) keeps the size and
    dilates by 1, 2, 4, 8.
    """

    def __init__(self, depth: int, channels: int, inner: int, out: int, dilated: bool):
        rates = [2**level if dilated else 1 for level in range(depth)]
        rates[-1] = rates[-1] if dilated else 2
        blocks: dict[str, nn.Module] = {"rebnconvin": ConvBlock(channels, out)}
        for level, rate in enumerate(rates, start=1):
            blocks[f"rebnconv{level}"] = ConvBlock(out if level == 1 else inner, inner, rate)
        for level in range(depth - 1, 0, -1):
            blocks[f"rebnconv{level}d"] = ConvBlock(2 * inner, out if level == 1 else inner, rates[level - 1])
        super().__init__(blocks)
        self.depth, self.dilated = depth, dilated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = x = self["rebnconvin"](x)
        skips = []
        for level in range(1, self.depth):
            x = self[f"rebnconv{level}"](x if level == 1 or self.dilated else halve(x))
            skips.append(x)
        x = self[f"rebnconv{self.depth}"](x)
        for level in range(self.depth - 1, 0, -1):
            skip = skips.pop()
            x = self[f"rebnconv{level}d"](torch.cat((fit(x, skip), skip), 1))
        return whole + x


class U2Net(nn.ModuleDict):
    """U²-Net, or with `stages=U2NETP` its small version. Normalised image [B, 3, H, W] -> SaliencyLogits."""

    side = 320  # input height and width of the published weights

    def __init__(self, stages: tuple[tuple[str, int, int, int, bool], ...] = U2NET):
        out = {name: channels for name, _, _, channels, _ in stages}
        channels, blocks = 3, dict[str, nn.Module]()
        for name, depth, inner, width, dilated in stages:
            channels += out[name[:-1]] if name.endswith("d") else 0
            blocks[name] = RSU(depth, channels, inner, width, dilated)
            channels = width
        sides = [out[name] for name in ("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6")]
        blocks |= {f"side{i}": nn.Conv2d(width, 1, 3, padding=1) for i, width in enumerate(sides, start=1)}
        blocks["outconv"] = nn.Conv2d(len(sides), 1, 1)
        super().__init__(blocks)

    def forward(self, image: torch.Tensor) -> SaliencyLogits:
        x, skips = image, []
        for level in range(1, 7):
            x = self[f"stage{level}"](x if level == 1 else halve(x))
            skips.append(x)
        decoded = [skips.pop()]
        for level in range(5, 0, -1):
            skip = skips.pop()
            decoded.append(self[f"stage{level}d"](torch.cat((fit(decoded[-1], skip), skip), 1)))
        sides = [fit(self[f"side{i}"](x), image) for i, x in enumerate(reversed(decoded), start=1)]
        return SaliencyLogits(self["outconv"](torch.cat(sides, 1)), sides)


def halve(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def fit(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Bilinear resize to the height and width of another map."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
