"""BASNet (Qin et al., CVPR 2019): a residual U-Net predicts the map, a small U-Net refines it.

Key names are those of the authors' weights file.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.saliency.u2net import SaliencyLogits, halve

# decoder stage: channels of its input, middle, output, and dilation of its last two convolutions
DECODER = {6: (1024, 512, 512, 2), 5: (1024, 512, 512, 1), 4: (1024, 512, 256, 1)}
DECODER |= {3: (512, 256, 128, 1), 2: (256, 128, 64, 1), 1: (128, 64, 64, 1)}


class BASNet(nn.ModuleDict):
    """Normalised image [B, 3, H, W], sides multiples of 32 -> SaliencyLogits, refined; sides from stage 1 to bridge."""

    side = 256  # input height and width of the published weights

    def __init__(self):
        from torchvision.models import resnet  # takes more than a second

        trunk = resnet.resnet34(weights=None)
        blocks: dict[str, nn.Module] = {"inconv": nn.Conv2d(3, 64, 3, padding=1), "inbn": nn.BatchNorm2d(64)}
        blocks |= {f"encoder{level}": getattr(trunk, f"layer{level}") for level in range(1, 5)}
        blocks |= {f"resb{stage}_{i}": resnet.BasicBlock(512, 512) for stage in (5, 6) for i in (1, 2, 3)}
        blocks |= three_convs("bg", 512, 512, 512, (2, 2, 2))
        for stage, (channels, middle, out, dilation) in DECODER.items():
            blocks |= three_convs(f"{stage}d", channels, middle, out, (1, dilation, dilation))
        blocks["outconvb"] = nn.Conv2d(512, 1, 3, padding=1)
        blocks |= {f"outconv{stage}": nn.Conv2d(out, 1, 3, padding=1) for stage, (_, _, out, _) in DECODER.items()}
        super().__init__(blocks | {"refunet": RefUnet()})

    def forward(self, image: torch.Tensor) -> SaliencyLogits:
        x, skips = F.relu(self["inbn"](self["inconv"](image))), []
        for level in range(1, 5):
            x = self[f"encoder{level}"](x)
            skips.append(x)
        for stage in (5, 6):
            x = halve(x)
            for i in (1, 2, 3):
                x = self[f"resb{stage}_{i}"](x)
            skips.append(x)
        x = self._three(x, "bg")
        sides = [self["outconvb"](x)]
        for stage in range(6, 0, -1):
            x = x if stage == 6 else double(x)
            x = self._three(torch.cat((x, skips.pop()), 1), f"{stage}d")
            sides.append(self[f"outconv{stage}"](x))
        refined = self["refunet"](sides[-1])
        sides = [F.interpolate(side, image.shape[2:], mode="bilinear", align_corners=False) for side in sides]
        return SaliencyLogits(refined, sides[::-1])

    def _three(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for part in ("1", "m", "2"):
            x = F.relu(self[f"bn{name}_{part}"](self[f"conv{name}_{part}"](x)))
        return x


class RefUnet(nn.ModuleDict):
    """The refinement module: logits [B, 1, H, W] -> the same plus a residual."""

    def __init__(self):
        blocks: dict[str, nn.Module] = {"conv0": nn.Conv2d(1, 64, 3, padding=1)}
        for level in range(1, 6):
            blocks |= {f"conv{level}": nn.Conv2d(64, 64, 3, padding=1), f"bn{level}": nn.BatchNorm2d(64)}
        for level in range(4, 0, -1):
            blocks |= {f"conv_d{level}": nn.Conv2d(128, 64, 3, padding=1), f"bn_d{level}": nn.BatchNorm2d(64)}
        super().__init__(blocks | {"conv_d0": nn.Conv2d(64, 1, 3, padding=1)})

    def forward(self, coarse: torch.Tensor) -> torch.Tensor:
        x, skips = self["conv0"](coarse), []
        for level in range(1, 6):
            x = F.relu(self[f"bn{level}"](self[f"conv{level}"](x if level == 1 else halve(x))))
            skips.append(x)
        x = skips.pop()
        for level in range(4, 0, -1):
            x = torch.cat((double(x), skips.pop()), 1)
            x = F.relu(self[f"bn_d{level}"](self[f"conv_d{level}"](x)))
        return coarse + self["conv_d0"](x)


def three_convs(name: str, channels: int, middle: int, out: int, rates: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Three 3x3 convolutions with BatchNorm, as the entries conv<name>_1, bn<name>_1, then _m and _2."""
    blocks, widths = dict[str, nn.Module](), (channels, middle, middle, out)
    for part, before, after, rate in zip(("1", "m", "2"), widths[:-1], widths[1:], rates, strict=True):
        blocks[f"conv{name}_{part}"] = nn.Conv2d(before, after, 3, padding=rate, dilation=rate)
        blocks[f"bn{name}_{part}"] = nn.BatchNorm2d(after)
    return blocks


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def share_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Adapts weights of BASNet from before September 2019.

    In that code stage 6 ended with the BatchNorm of stage 5 (github.com/xuebinqin/BASNet, issue 12). The BatchNorm of
    stage 6 was never used, which its initial statistics show; it gets the weights of the one that was.
    """
    mean, variance = (state.get(f"bn6d_2.running_{name}") for name in ("mean", "var"))
    if mean is None or variance is None or mean.any() or (variance != 1).any():
        return state
    shared = {key: value for key, value in state.items() if key.startswith("bn5d_2.")}
    return state | {key.replace("bn5d", "bn6d"): value for key, value in shared.items()}
