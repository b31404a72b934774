"""DeepLabV3 (Chen et al., 2017): the ASPP decoder and torchvision's key names on any backbone.

B batch, C classes, D decoder width, H W pixels, h w feature cells.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from models.output import Output
from models.parts import ASPP
from models.trunks import build_backbone
from models.trunks.base import Backbone
from utils.errors import UserError


class DeepLabV3(nn.Module):
    """Keys equal those of torchvision's deeplabv3_resnet50(aux_loss=None): backbone.*, classifier.{0,1,2,4}.*

    `trained` names the backbone parts that train (default: the backbone's own, behind stride 8); `freeze_batchnorm`
    says whose running statistics stay fixed in training: none, backbone, first_layers (what does not train), all.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        atrous_rates: tuple[int, ...] = (12, 24, 36),
        head_channels: int = 256,
        dropout: float = 0.5,
        freeze_batchnorm: Literal["none", "backbone", "first_layers", "all"] = "backbone",
        trained: tuple[str, ...] | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        decoder = build_decoder(backbone.out_channels, atrous_rates, head_channels, dropout)
        self.classifier = nn.Sequential(*decoder, nn.Conv2d(head_channels, num_classes, 1))
        self.freeze_batchnorm = freeze_batchnorm
        backbone.requires_grad_(False)
        self.trained = find_parts(backbone, backbone.trained if trained is None else trained)
        for part in self.trained:
            part.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> "DeepLabV3":
        """Training mode, except for BatchNorm layers with fixed statistics; their affine weights may still train."""
        super().train(mode)
        for module in self._fixed_statistics():
            module.eval()
        return self

    def _fixed_statistics(self) -> list[nn.Module]:
        backbone = list(self.backbone.modules())
        trained = {m for part in self.trained for m in part.modules()}
        fixed = {
            "none": [],
            "first_layers": [m for m in backbone if m not in trained],
            "backbone": backbone,
            "all": list(self.modules()),
        }[self.freeze_batchnorm]
        return [m for m in fixed if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def forward(self, image: torch.Tensor) -> Output:
        return self._decode(self.backbone(image), image.shape[-2:])

    def forward_sources(self, images: list[torch.Tensor]) -> list[Output]:
        """One output per source, as separate calls of forward would give.

        The backbone runs once over all sources: with fixed BatchNorm statistics its output for an image does not depend
        on the others. The decoder runs per source, because its BatchNorm does use the statistics of the batch.
        """
        if self.freeze_batchnorm not in ("backbone", "all"):
            return [self(image) for image in images]
        features = self.backbone(torch.cat(images)).split([len(image) for image in images])
        return [self._decode(part, image.shape[-2:]) for part, image in zip(features, images, strict=True)]

    def cell_logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits before they are up-sampled, [B, C, h, w]."""
        return self.classifier(self.backbone(image))

    def _decode(self, features: torch.Tensor, size: torch.Size) -> Output:
        embedding = self.classifier[:4](features)
        # classes last in memory: what follows runs over the classes of a pixel, twice as fast when they lie together
        logits = self.classifier[4](embedding).contiguous(memory_format=torch.channels_last)
        return Output(F.interpolate(logits, size=size, mode="bilinear", align_corners=False), embedding)

    def compile(self, *args, **kwargs) -> None:
        """torch.compile for the parts that all ways of calling this network share."""
        self.backbone.compile(*args, **kwargs)
        self.classifier[0].compile(*args, **kwargs)

    def decoder_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.classifier.parameters() if p.requires_grad]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.backbone.parameters() if p.requires_grad]


def build_decoder(in_channels: int, atrous_rates: Sequence[int], head_channels: int, dropout: float) -> nn.Sequential:
    """DeepLabV3's head without its last convolution: [B, in_channels, h, w] -> [B, head_channels, h, w]."""
    aspp = ASPP(in_channels, atrous_rates, head_channels, dropout)
    convolution = nn.Conv2d(head_channels, head_channels, 3, padding=1, bias=False)
    return nn.Sequential(aspp, convolution, nn.BatchNorm2d(head_channels), nn.ReLU())


def find_parts(backbone: Backbone, names: tuple[str, ...]) -> list[nn.Module]:
    """The named parts of a backbone, e.g. layer4 or blocks.15."""
    parts = dict(backbone.named_modules())
    for name in names:
        if name not in parts:
            known = ", ".join(name for name, _ in backbone.named_children())
            raise UserError(f"model.trained: this backbone has no part '{name}'; its parts are {known}")
    return [parts[name] for name in names]


def build_model(cfg, num_classes: int) -> DeepLabV3:
    """The network that a `model` section of the configuration describes (utils/config/common.py)."""
    backbone = build_backbone(cfg.backbone, cfg.output_stride, cfg.init)
    return DeepLabV3(
        backbone, num_classes, cfg.atrous_rates, cfg.head_channels, cfg.dropout, cfg.freeze_batchnorm, cfg.trained
    )
