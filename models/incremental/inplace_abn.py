"""The network of the official MiB and PLOP checkpoints: DeepLabV3 with in-place ABN.

In-place ABN (Rota Bulo et al., CVPR 2018) is BatchNorm whose scale is |weight| + eps, followed by a leaky ReLU. Plain
BatchNorm and leaky ReLU give the same values after `convert_abn`. B batch, C classes, H W pixels, h w cells.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from models.output import Output
from models.trunks.resnet import ResNet, dilate

SLOPE = 0.01  # of the leaky ReLU
EPS = 1e-5
RATES = {16: (6, 12, 18), 8: (12, 24, 32)}
POOLING = 32  # side of the average pooling in evaluation: global for crops of 512 pixels at stride 16
BLOCK = re.compile(r"body\.mod(\d)\.block(\d+)\.(?:convs\.)?(.*)")


class AbnHead(nn.Module):
    """ASPP whose pooled branch is added instead of concatenated; [B, D, h, w] -> [B, width, h, w]."""

    def __init__(self, channels: int, width: int, rates: Sequence[int]):
        super().__init__()
        wide = [nn.Conv2d(channels, width, 3, padding=rate, dilation=rate, bias=False) for rate in rates]
        self.map_convs = nn.ModuleList([nn.Conv2d(channels, width, 1, bias=False), *wide])
        self.map_bn = nn.BatchNorm2d(width * len(self.map_convs))
        self.global_pooling_conv = nn.Conv2d(channels, width, 1, bias=False)
        self.global_pooling_bn = nn.BatchNorm2d(width)
        self.red_conv = nn.Conv2d(width * len(self.map_convs), width, 1, bias=False)
        self.pool_red_conv = nn.Conv2d(width, width, 1, bias=False)
        self.red_bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.red_conv(leaky(self.map_bn(torch.cat([conv(x) for conv in self.map_convs], dim=1))))
        pooled = leaky(self.global_pooling_bn(self.global_pooling_conv(self.pool(x))))
        return leaky(self.red_bn(maps + self.pool_red_conv(pooled)))

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of the map; in evaluation, means of windows of at most POOLING cells, with replicated borders."""
        if self.training:
            return x.mean((2, 3), keepdim=True)
        height, width = (min(POOLING, side) for side in x.shape[2:])
        padding = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2)
        return F.pad(F.avg_pool2d(x, (height, width), stride=1), padding, mode="replicate")


class AbnDeepLab(nn.Module):
    """ResNet with leaky ReLU, AbnHead, and a 1x1 convolution per step; background first, no unknown class."""

    def __init__(self, name: str, output_stride: int, num_classes: Sequence[int], width: int = 256):
        super().__init__()
        self.backbone = ResNet(name, output_stride)
        for module in list(self.backbone.modules()):
            if isinstance(getattr(module, "relu", None), nn.ReLU):
                module.relu = nn.LeakyReLU(SLOPE, inplace=True)
        for layer, dilation in {16: [("layer4", 2)], 8: [("layer3", 2), ("layer4", 4)]}.get(output_stride, []):
            dilate(getattr(self.backbone, layer), before=dilation, dilation=dilation)  # the first block, too
        self.head = AbnHead(self.backbone.out_channels, width, RATES.get(output_stride, RATES[16]))
        self.cls = nn.ModuleList(nn.Conv2d(width, count, 1) for count in num_classes)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the network was trained on."""
        return self.backbone.normalize(image)

    def forward(self, image: torch.Tensor) -> Output:
        """Logits of all steps, and the input of their convolutions."""
        features = self.head(self.backbone(image))
        logits = torch.cat([layer(features) for layer in self.cls], dim=1)
        return Output(F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False), features)


def leaky(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, SLOPE)


def rename_abn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the keys of an official MiB or PLOP checkpoint to those of AbnDeepLab; other keys stay."""

    def rename(key: str) -> str:
        if match := BLOCK.fullmatch(key):
            stage, block, rest = match.groups()
            rest = rest.replace("proj_conv", "downsample.0").replace("proj_bn", "downsample.1")
            return f"backbone.layer{int(stage) - 1}.{int(block) - 1}.{rest}"
        return key.replace("body.mod1.", "backbone.")

    return {rename(key): value for key, value in state.items()}


def convert_abn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Converts in-place ABN to plain BatchNorm: weight becomes |weight| + eps. Keys as in the official file."""
    norms = {key.removesuffix("running_mean") + "weight" for key in state if key.endswith("running_mean")}
    return {key: value.abs() + EPS if key in norms else value for key, value in state.items()}
