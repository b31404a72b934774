"""DeepLabV3+ (Chen et al., ECCV 2018) as ZS3Net has it, under its key names, on any backbone.

B batch, C classes, D decoder width, H W pixels, h w cells at stride 4.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.deeplab import find_parts
from models.output import Output
from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.trunks.resnet import ResNet
from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

CLASSIFIER = "decoder.pred_conv."
LAST = f"{CLASSIFIER}weight"  # [C, D, 1, 1]: tells the number of outputs
BRANCH = re.compile(r"aspp\.aspp(\d+)\.atrous_conv\.weight")


class AtrousBranch(nn.Module):
    """Convolution, BatchNorm, ReLU; 1x1 for rate 0."""

    def __init__(self, inputs: int, width: int, rate: int):
        super().__init__()
        size = 3 if rate else 1
        self.atrous_conv = nn.Conv2d(inputs, width, size, padding=rate, dilation=rate or 1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.atrous_conv(x)).relu()


class Pyramid(nn.Module):
    """Atrous spatial pyramid: a 1x1 branch, one per rate, the mean of the image; joined by a 1x1 convolution."""

    def __init__(self, inputs: int, rates: Sequence[int], width: int, dropout: float):
        super().__init__()
        self.branches = [f"aspp{number}" for number in range(1, len(rates) + 2)]
        for name, rate in zip(self.branches, (0, *rates), strict=True):
            setattr(self, name, AtrousBranch(inputs, width, rate))
        narrow = nn.Conv2d(inputs, width, 1, bias=False)
        self.global_avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), narrow, nn.BatchNorm2d(width), nn.ReLU())
        self.conv1 = nn.Conv2d(width * (len(rates) + 2), width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])  # bilinear from one cell is the same everywhere
        joined = torch.cat([*(getattr(self, name)(x) for name in self.branches), pooled], dim=1)
        return self.dropout(self.bn1(self.conv1(joined)).relu())


class Decoder(nn.Module):
    """Joins the pyramid with features at stride 4; `pred_conv` is the classifier of a pixel feature."""

    def __init__(self, low_inputs: int, low_width: int, width: int, num_classes: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(low_inputs, low_width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(low_width)
        self.last_conv = nn.Sequential(
            nn.Conv2d(width + low_width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout / 5),  # 0.5 and 0.1 in the official code
        )
        self.pred_conv = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Pixel features [B, D, h, w], none below 0."""
        low = self.bn1(self.conv1(low)).relu()
        return self.last_conv(torch.cat([resize(x, low.shape[-2:]), low], dim=1))


class DeepLabPlus(nn.Module):
    """Keys are those of the official ZS3 checkpoints: backbone.*, aspp.*, decoder.*

    `trained` names the backbone parts that train, None: all, as published.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        atrous_rates: Sequence[int] = (6, 12, 18),
        head_channels: int = 256,
        dropout: float = 0.5,
        low_channels: int = 48,
        trained: tuple[str, ...] | None = None,
    ):
        super().__init__()
        if backbone.low_channels is None:
            raise UserError(
                "model.backbone: it has no features at stride 4, which DeepLabV3+ joins in; use another one"
            )
        self.backbone = backbone
        self.aspp = Pyramid(backbone.out_channels, atrous_rates, head_channels, dropout)
        self.decoder = Decoder(backbone.low_channels, low_channels, head_channels, num_classes, dropout)
        for part in [*self.aspp.modules(), *self.decoder.modules()]:
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        if trained is not None:
            backbone.requires_grad_(False)
            for part in find_parts(backbone, trained):
                part.requires_grad_(True)

    @property
    def classifier(self) -> nn.Conv2d:
        """The last layer, a 1x1 convolution."""
        return self.decoder.pred_conv

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """What the classifier reads, [B, D, h, w] at stride 4, none below 0."""
        stages = self.backbone.stages(image)
        return self.decoder(self.aspp(stages[-1]), stages[0])

    def classify(self, features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Logits [B, C, H, W] of pixel features, at `size`."""
        return resize(self.classifier(features).contiguous(memory_format=torch.channels_last), size)

    def forward(self, image: torch.Tensor) -> Output:
        """Images whose sides the backbone does not take are continued to the right and below with their last pixels."""
        (height, width), divisor = image.shape[-2:], self.backbone.divisor
        if height % divisor or width % divisor:
            image = F.pad(image, (0, -width % divisor, 0, -height % divisor), mode="replicate")
        features = self.features(image)
        return Output(self.classify(features, image.shape[-2:])[..., :height, :width], features)

    def decoder_parameters(self) -> list[nn.Parameter]:
        return [*self.aspp.parameters(), *self.decoder.parameters()]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.backbone.parameters() if p.requires_grad]


def resize(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, corner pixels on corner pixels as in the official code."""
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=True)


def use_multi_grid(backbone: ResNet, stride: int, rates: Sequence[int] = (1, 2, 4)) -> None:
    """Dilations as in the official code: in a dilated stage every block has the stage's, also its first one; in the
    last stage block i has `rates[i]` times it. `stride` is the backbone's output stride.
    """
    if stride == 8:
        set_dilation(backbone.layer3, [2] * len(backbone.layer3))
    last = {8: 4, 16: 2, 32: 1}[stride]
    set_dilation(backbone.layer4, [last * rate for rate in rates[: len(backbone.layer4)]])


def set_dilation(stage: nn.Sequential, rates: Sequence[int]) -> None:
    """The dilation of the 3x3 convolutions of each block."""
    for block, rate in zip(stage, rates, strict=True):
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (rate, rate)


def build_deeplab_plus(cfg, num_classes: int, init: str | None = None) -> DeepLabPlus:
    """The network that a `model` section describes."""
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init or cfg.init)
    if isinstance(backbone, ResNet):
        use_multi_grid(backbone, cfg.output_stride, cfg.multi_grid)
    return DeepLabPlus(
        backbone, num_classes, cfg.atrous_rates, cfg.head_channels, cfg.dropout, cfg.low_channels, cfg.trained
    )


def load_deeplab_plus(model: DeepLabPlus, source: Path | WeightsFile, *, other_classes: bool = False) -> WeightsFile:
    """Load a network of ours or of the official ZS3 code, strictly; `other_classes` leaves another classifier out.

    Raises UserError that names the file and what does not fit.
    """
    file = network_file(source)
    own, theirs = model.classifier.out_channels, len(file.state[LAST])
    if own == theirs:
        load_strict(model, file.state, file.path)
    elif not other_classes:
        raise UserError(f"{file.path}: has {theirs} outputs, this run needs {own}; check data.dataset")
    else:
        state = {key: value for key, value in file.state.items() if not key.startswith(CLASSIFIER)}
        load_strict(model, state, file.path, leave=(CLASSIFIER,))
    return file


def network_file(source: Path | WeightsFile) -> WeightsFile:
    """The network in a file of step 1, 2 or 3, ours or official; UserError for a file of another kind."""
    file = read_weights(source)
    inner = {key.removeprefix("network."): value for key, value in file.state.items() if key.startswith("network.")}
    state = inner or file.state
    if LAST not in state or not any(BRANCH.fullmatch(key) for key in state):
        problem = f"not a DeepLabV3+ of ZS3 (its keys begin with {file.starts()})"
        raise UserError(f"{file.path}: {problem}; expected backbone.*, aspp.aspp1.*, decoder.pred_conv.*")
    return WeightsFile(file.path, state, file.extra)
