"""DeepLabV3 and DeepLabV3+ with one head per learning step (SSUL, Cha et al., NeurIPS 2021), under its key names.

B batch, C classes of all heads, D decoder width, H W pixels, h w feature cells.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.incremental.inplace_abn import AbnDeepLab, convert_abn, rename_abn
from models.output import Output
from models.parts import ASPP
from models.segmenter import Segmenter, saved_classes
from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.weights import WeightsFile, load_strict, read_weights
from utils.channels import largest
from utils.config.incremental import IncrementalConfig
from utils.errors import UserError
from utils.resize import resize_shorter

LOW_LEVEL_WIDTH = 48  # of the features at stride 4 in DeepLabV3+
SATURATED = 8.0  # above it sigmoids of logits that differ by a ten-thousandth may be the same float32
HEAD = re.compile(r"(?:classifier\.head|cls)\.(\d+)(?:\.3)?\.weight")


class Classifier(nn.Module):
    """ASPP, and a head per entry of `num_classes` on what it makes."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: Sequence[int],
        rates,
        width: int,
        dropout: float,
        plus: bool,
        linear: bool,
    ):
        super().__init__()
        if plus:
            assert backbone.low_channels  # of every backbone that a configuration names
            narrow = nn.Conv2d(backbone.low_channels, LOW_LEVEL_WIDTH, 1, bias=False)
            self.project = nn.Sequential(narrow, nn.BatchNorm2d(LOW_LEVEL_WIDTH), nn.ReLU())
        self.aspp = ASPP(backbone.out_channels, rates, width, dropout)
        features = width + LOW_LEVEL_WIDTH if plus else width
        self.head = nn.ModuleList(make_head(features, width, count, linear) for count in num_classes)


class IncrementalDeepLab(nn.Module):
    """`num_classes` lists the outputs of each head; channels follow each other in the order of the heads.

    `plus` adds DeepLabV3+'s features at stride 4; `linear` heads are a 1x1 convolution only (MiB, PLOP). Keys are those
    of the official SSUL checkpoints.
    """

    batchnorm_frozen = False  # see freeze_batchnorm

    def __init__(
        self,
        backbone: Backbone,
        num_classes: Sequence[int],
        atrous_rates: Sequence[int] = (6, 12, 18),
        head_channels: int = 256,
        dropout: float = 0.1,
        plus: bool = False,
        linear: bool = False,
    ):
        super().__init__()
        self.plus, self.linear, self.backbone = plus, linear, backbone
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.01
        self.classifier = Classifier(backbone, num_classes, atrous_rates, head_channels, dropout, plus, linear)
        initialize(self.classifier, plus)

    @property
    def num_classes(self) -> list[int]:
        """Outputs of each head."""
        return [last_layer(head).out_channels for head in self.classifier.head]

    def train(self, mode: bool = True) -> "IncrementalDeepLab":
        super().train(mode)
        if self.batchnorm_frozen:
            for module in self.batchnorms():
                module.eval()
        return self

    def batchnorms(self) -> Iterator[nn.Module]:
        """Every BatchNorm, those of the heads included."""
        return (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))

    def freeze_batchnorm(self) -> None:
        """Keep every BatchNorm as it is: in evaluation mode also while training, weight and bias without gradient."""
        self.batchnorm_frozen = True
        for module in self.batchnorms():
            module.requires_grad_(False)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(ASPP output without its dropout [B, D, h, w], features at stride 4 for DeepLabV3+)."""
        stages = self.backbone.stages(image) if self.plus else [self.backbone(image)]
        return self.neck(stages[-1]), self.classifier.project(stages[0]) if self.plus else None

    def neck(self, features: torch.Tensor) -> torch.Tensor:
        """ASPP without its dropout."""
        aspp = self.classifier.aspp
        return aspp.project[:-1](torch.cat([conv(features) for conv in aspp.convs], dim=1))

    def forward_with_taps(self, image: torch.Tensor) -> tuple[Output, list[torch.Tensor]]:
        """(output, what PLOP compares: the sums before the last activation of each stage, features, low logits)."""
        last, sums = self.backbone.taps(image)
        features = self.neck(last)
        low_logits = self.decode(self.drop(features), None)
        return Output(upsample(low_logits, image.shape[-2:]), features), [*sums, features, low_logits]

    def drop(self, features: torch.Tensor) -> torch.Tensor:
        """The dropout behind ASPP, active in training mode."""
        return self.classifier.aspp.project[-1](features)

    def decode(
        self, features: torch.Tensor, low: torch.Tensor | None, heads: Sequence[nn.Module] | None = None
    ) -> torch.Tensor:
        """Low-resolution logits of some heads (default: all), concatenated."""
        if low is not None:
            up = F.interpolate(features, size=low.shape[-2:], mode="bilinear", align_corners=False)
            features = torch.cat([low, up], dim=1)
        return torch.cat([head(features) for head in (self.classifier.head if heads is None else heads)], dim=1)

    def compile(self, *args, **kwargs) -> None:
        """torch.compile for the parts that all ways of calling this network share."""
        self.backbone.compile(*args, **kwargs)
        for branch in self.classifier.aspp.convs:
            branch.compile(*args, **kwargs)

    def cell_logits(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits of all heads before they are up-sampled [B, C, h, w], the ASPP output)."""
        features, low = self.features(image)
        return self.decode(self.drop(features), low), features

    def forward(self, image: torch.Tensor) -> Output:
        """Logits of all heads, and the ASPP output."""
        logits, features = self.cell_logits(image)
        return Output(upsample(logits, image.shape[-2:]), features)

    def add_head(self, count: int) -> nn.Module:
        """Append a freshly initialised head of `count` classes."""
        first = self.classifier.head[0]
        inner = first[0] if isinstance(first, nn.Sequential) else first
        assert isinstance(inner, nn.Conv2d)
        head = make_head(inner.in_channels, inner.out_channels, count, self.linear)
        initialize(head, self.plus)
        self.classifier.head.append(head.train(self.training))
        return head

    @torch.no_grad()
    def transfer_background(self) -> None:
        """Share background's probability evenly between it and the newest head's classes (MiB, sec. 3.3)."""
        background, new = last_layer(self.classifier.head[0]), last_layer(self.classifier.head[-1])
        assert background.bias is not None and new.bias is not None
        bias = background.bias[0] - math.log(new.out_channels + 1)
        new.weight.copy_(background.weight[:1].expand_as(new.weight))
        new.bias.fill_(bias)
        background.bias[0] = bias

    def transfer_unknown(self) -> None:
        """Start the newest head as the unknown head (head 0): every new channel has its logits."""
        unknown, new = self.classifier.head[0], self.classifier.head[-1]
        rows = last_layer(new).out_channels
        state = unknown.state_dict()
        state["3.weight"], state["3.bias"] = state["3.weight"].repeat(rows, 1, 1, 1), state["3.bias"].repeat(rows)
        new.load_state_dict(state)


def make_head(features: int, width: int, count: int, linear: bool) -> nn.Module:
    if linear:
        return nn.Conv2d(features, count, 1)
    return nn.Sequential(
        nn.Conv2d(features, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, count, 1),
    )


def last_layer(head: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution that gives a head's logits."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(last, nn.Conv2d)
    return last


def upsample(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear; classes last in memory, where the losses read them together."""
    logits = logits.contiguous(memory_format=torch.channels_last)
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def initialize(module: nn.Module, plus: bool) -> None:
    """Kaiming-normal convolutions (fan-in, ReLU) or, for DeepLabV3+, normal ones of deviation 0.001; biases default."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            if plus:
                nn.init.normal_(part.weight, std=0.001)
            else:
                nn.init.kaiming_normal_(part.weight)


def build_incremental(cfg, heads: Sequence[int], linear: bool, init: str | None = None) -> IncrementalDeepLab:
    """The network that a `model` section describes (utils/config/incremental.py), with these outputs per head."""
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init or cfg.init)
    return IncrementalDeepLab(
        backbone, heads, cfg.atrous_rates, cfg.head_channels, cfg.dropout, plus=cfg.plus, linear=linear
    )


def class_scores(logits: torch.Tensor, loss: str) -> torch.Tensor:
    """Score of each channel: sigmoid of networks trained with binary cross-entropy, else softmax."""
    return logits.float().sigmoid() if loss == "bce" else logits.float().softmax(1)


def best_channel(logits: torch.Tensor, loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(score, channel) with the largest `class_scores`, both [B, H, W]; on a CPU without the other channels' sigmoids.

    Sigmoids of large logits round to the same number, of which the first channel wins: there all are computed.
    """
    if loss != "bce" or logits.device.type != "cpu" or torch.compiler.is_exporting():
        score, channel = class_scores(logits, loss).max(1)
        return score, channel
    value, channel = largest(logits)
    score = value.float().sigmoid()
    tied = value > SATURATED
    if tied.any():
        score[tied], channel[tied] = logits.movedim(1, -1)[tied].float().sigmoid().max(1)
    return score, channel


def predicted_ids(logits: torch.Tensor, unknown: bool, loss: str) -> torch.Tensor:
    """Train ids [B, H, W] of logits [B, C, H, W]: the unknown score, channel 0, counts for background."""
    score, channel = best_channel(logits, loss) if loss == "bce" else largest(logits)  # softmax keeps the order
    if not unknown:
        return channel
    both = logits[:, :2].float()
    background = both.sigmoid().sum(1) if loss == "bce" else both.logsumexp(1)
    # where one of both is the best channel, their sum is no less
    return torch.where((channel < 2) | (background >= score), 0, channel - 1)


@dataclass(frozen=True)
class StepWeights:
    """State dict of the network of a step, under the keys of IncrementalDeepLab or AbnDeepLab."""

    path: Path
    state: dict[str, torch.Tensor]

    @classmethod
    def read(cls, source: Path | WeightsFile) -> "StepWeights":
        """From a checkpoint of ours or of the official SSUL, MiB or PLOP code; UserError for any other file."""
        file = read_weights(source)
        abn = "body.mod1.conv1.weight" in file.state
        weights = cls(file.path, rename_abn(convert_abn(file.state)) if abn else file.state)
        if not weights.heads:
            expected = "expected classifier.head.* (ours, SSUL) or body.* and cls.* (MiB, PLOP)"
            found = f"its keys begin with {file.starts()}"
            raise UserError(f"{file.path}: not the network of a step ({found}); {expected}")
        return weights

    @property
    def heads(self) -> tuple[int, ...]:
        """Outputs of each head."""
        found = [(match, value) for key, value in self.state.items() if (match := HEAD.fullmatch(key))]
        return tuple(len(value) for _, value in sorted(found, key=lambda pair: int(pair[0][1])))

    @property
    def in_place_abn(self) -> bool:
        """Whether it is a network of the official MiB or PLOP code."""
        return "cls.0.weight" in self.state

    @property
    def linear(self) -> bool:
        """Whether heads are a 1x1 convolution only."""
        return self.in_place_abn or "classifier.head.0.weight" in self.state

    @property
    def unknown(self) -> bool:
        """Whether output 0 is the unknown class: otherwise the first head is background with the classes of step 0."""
        return self.heads[0] == 1


def load_incremental(cfg, source: Path | WeightsFile | StepWeights) -> IncrementalDeepLab | AbnDeepLab:
    """The network with the heads that a checkpoint has; UserError when section `model` describes another one."""
    weights = source if isinstance(source, StepWeights) else StepWeights.read(source)
    model: IncrementalDeepLab | AbnDeepLab
    if weights.in_place_abn:
        model = AbnDeepLab(cfg.backbone, cfg.output_stride, weights.heads)
    else:
        model = build_incremental(cfg, weights.heads, weights.linear, init="random")
    load_strict(model, weights.state, weights.path, "check section model and the task")
    return model


def load_step(file: WeightsFile, config: IncrementalConfig) -> Segmenter:
    """A class-incremental network; it sees the image with its shorter side as in the evaluation."""
    weights = StepWeights.read(file)
    model, loss = load_incremental(config.model, weights), "ce" if weights.linear else config.ssul.loss
    outputs = sum(weights.heads) - weights.unknown  # the unknown one counts for background
    resize = partial(resize_shorter, size=config.data.image_size, divisor=model.backbone.divisor)
    flavour = "official MiB or PLOP" if weights.in_place_abn else "heads of steps"

    def decide(output: Output) -> torch.Tensor:
        return predicted_ids(output.logits, weights.unknown, loss)

    return Segmenter(file.path, model, decide, resize, outputs, *saved_classes(file, outputs), flavour, weights.heads)
