"""The segmentation network of discovery, incremental, zero-shot and linear probes: trunk, decoder, classifier.

B batch, C classes, D decoder width, H W pixels, h w feature cells.
"""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from models.decoders import build_decoder
from models.decoders.base import Decoder
from models.decoders.layers import kaiming_normal, upsample
from models.output import Output
from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.trunks.resnet import ResNet, use_multi_grid
from utils.config.common import DeepLab, Segmentation
from utils.errors import UserError
from utils.recipe import trainable

Classifier = TypeVar("Classifier", bound=nn.Module)  # [B, D, h, w] -> logits [B, C, h, w]
FixedStatistics = Literal["none", "backbone", "first_layers", "all"]


class SegmentationNet(nn.Module, Generic[Classifier]):
    """State-dict keys: backbone.*, decoder.*, classifier.*

    trained           names of the backbone parts that train, e.g. layer4 or blocks.15; None: all of them
    fixed_statistics  BatchNorm layers that stay in evaluation mode during training: none, those of the backbone, those
                      of its parts that do not train, or all; their affine weights may train
    """

    backbone: Backbone
    decoder: Decoder
    classifier: Classifier

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        classifier: Classifier,
        trained: Sequence[str] | None = None,
        fixed_statistics: FixedStatistics = "none",
    ):
        super().__init__()
        self.backbone, self.decoder, self.classifier = backbone, decoder, classifier
        self.fixed_statistics: FixedStatistics = fixed_statistics
        self.trained = [backbone] if trained is None else find_parts(backbone, trained)
        backbone.requires_grad_(False)
        for part in self.trained:
            part.requires_grad_(True)
        self.train()

    # ---- from the image to logits

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The levels of the backbone that the decoder reads."""
        return self.backbone.levels(image) if self.decoder.all_levels else [self.backbone(image)]

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The input of the classifier, [B, D, h, w]; H and W are multiples of `backbone.divisor`."""
        return self.decoder(self.levels(image))

    def classify(self, features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Logits [B, C, H, W] of features [B, D, h, w], bilinearly up-sampled to `size` (H, W)."""
        return self.upsample(self.classifier(features), size)

    def upsample(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Logits [B, C, h, w] -> [B, C, H, W], as `classify` does it."""
        return upsample_logits(logits, size, self.decoder.align_corners)

    def cell_logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits before they are up-sampled, [B, C, h, w]."""
        return self.classifier(self.features(image))

    def forward(self, image: torch.Tensor) -> Output:
        """Normalised images of any size -> logits at that size, and the input of the classifier."""
        return self._output(self.features(self._padded(image)), image.shape[-2:])

    def forward_sources(self, images: list[torch.Tensor]) -> list[Output]:
        """One output per source, equal to those of separate calls of forward.

        If its BatchNorm statistics are fixed, the backbone runs once over all sources. The decoder runs once per
        source, because its BatchNorm uses the statistics of the batch.
        """
        if self.fixed_statistics not in ("backbone", "all"):
            return [self(image) for image in images]
        together = self.levels(self._padded(torch.cat(images)))
        by_source = zip(*(level.split([len(image) for image in images]) for level in together), strict=True)
        return [
            self._output(self.decoder(levels), image.shape[-2:])
            for levels, image in zip(by_source, images, strict=True)
        ]

    def _padded(self, image: torch.Tensor) -> torch.Tensor:
        """Repeats the last pixels to the right and below, up to sizes that the backbone accepts."""
        (height, width), divisor = image.shape[-2:], self.backbone.divisor
        if height % divisor == 0 and width % divisor == 0:
            return image
        return F.pad(image, (0, -width % divisor, 0, -height % divisor), mode="replicate")

    def _output(self, features: torch.Tensor, size: Sequence[int]) -> Output:
        """Logits at the size of the padded image, cropped to `size`."""
        divisor = self.backbone.divisor
        padded = [side + -side % divisor for side in size]
        return Output(self.classify(features, padded)[..., : size[0], : size[1]], features)

    # ---- what trains

    def train(self, mode: bool = True) -> "SegmentationNet[Classifier]":
        """Training mode, except for BatchNorm layers with fixed statistics."""
        super().train(mode)
        for module in self._fixed():
            module.eval()
        return self

    def _fixed(self) -> list[nn.Module]:
        backbone = list(self.backbone.modules())
        trained = {module for part in self.trained for module in part.modules()}
        fixed = {
            "none": [],
            "first_layers": [module for module in backbone if module not in trained],
            "backbone": backbone,
            "all": list(self.modules()),
        }[self.fixed_statistics]
        return [module for module in fixed if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def freeze_batchnorm(self) -> None:
        """Fixes every BatchNorm from now on: statistics, weight and bias."""
        self.fixed_statistics = "all"
        for module in self._fixed():
            module.eval().requires_grad_(False)

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of decoder and classifier that train."""
        return [*trainable(self.decoder), *trainable(self.classifier)]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return trainable(self.backbone)

    def compile(self, *args, **kwargs) -> None:
        """torch.compile for the parts that all ways of calling this network share."""
        self.backbone.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)


def upsample_logits(logits: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
    """Logits [B, C, h, w] -> [B, C, H, W], classes last in memory: losses read the classes of a pixel together."""
    return upsample(logits.contiguous(memory_format=torch.channels_last), size, align_corners)


def find_parts(backbone: Backbone, names: Sequence[str]) -> list[nn.Module]:
    """The named parts of a backbone. Raises UserError for an unknown name."""
    parts = dict(backbone.named_modules())
    for name in names:
        if name not in parts:
            known = ", ".join(name for name, _ in backbone.named_children())
            raise UserError(f"model.trained: this backbone has no part '{name}'; its parts are {known}")
    return [parts[name] for name in names]


def build_trunk(cfg: DeepLab, init: str | None = None) -> Backbone:
    """The backbone that a `model` section describes; `init` replaces the section's."""
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init or cfg.init)
    if cfg.multi_grid and cfg.decoder != "mlp" and isinstance(backbone, ResNet):
        use_multi_grid(backbone, cfg.output_stride, cfg.multi_grid)
    return backbone


def training_of(cfg: Segmentation, backbone: Backbone) -> tuple[Sequence[str] | None, FixedStatistics]:
    """(parts of the backbone that train, BatchNorm layers with fixed statistics) of a `model` section."""
    if cfg.freeze:
        return (), "all" if cfg.freeze_batchnorm == "all" else "backbone"
    late_only = cfg.trained is None and not cfg.trains_all
    return backbone.trained if late_only else cfg.trained, cfg.freeze_batchnorm


def build_network(cfg: Segmentation, num_classes: int, init: str | None = None) -> SegmentationNet[nn.Conv2d]:
    """The network that a `model` section describes, with a 1x1 convolution as classifier."""
    backbone = build_trunk(cfg, init)
    decoder = build_decoder(cfg, backbone.channels)
    classifier = nn.Conv2d(decoder.out_channels, num_classes, 1)
    if cfg.decoder == "deeplabv3plus":  # as in the official ZS3Net code
        kaiming_normal([*decoder.modules(), classifier])
    return SegmentationNet(backbone, decoder, classifier, *training_of(cfg, backbone))
