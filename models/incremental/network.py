"""The classifier of class-incremental networks: one head per learning step (SSUL, Cha et al., NeurIPS 2021).

B batch, C classes of all heads, D decoder width, h w feature cells.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from models.decoders import build_decoder
from models.decoders.layers import conv_bn_relu, kaiming_normal
from models.output import Output
from models.segmentation import SegmentationNet, build_trunk, training_of
from utils.config.incremental import Model

BACKBONE_MOMENTUM = 0.01  # of the backbone's BatchNorm, in the official SSUL code
PLUS_STD = 0.001  # of the initial weights with DeepLabV3+, in the official SSUL code


class Heads(nn.Module):
    """Heads on the same features; their channels follow each other in the order of the heads.

    A head is a 3x3 convolution of `width` channels, BatchNorm, ReLU and a 1x1 convolution (SSUL); with `linear`, a 1x1
    convolution (MiB, PLOP). `plus` selects the initialisation of DeepLabV3+. Keys: head.N.*
    """

    def __init__(
        self, features: int, num_classes: Sequence[int], width: int = 256, linear: bool = False, plus: bool = False
    ):
        super().__init__()
        self.features, self.width, self.linear, self.plus = features, width, linear, plus
        self.head = nn.ModuleList(self._make(count) for count in num_classes)

    def forward(self, features: torch.Tensor, heads: Iterable[nn.Module] | None = None) -> torch.Tensor:
        """[B, D, h, w] -> logits [B, C, h, w] of `heads`, by default of all."""
        return torch.cat([head(features) for head in (self.head if heads is None else heads)], dim=1)

    @property
    def num_classes(self) -> list[int]:
        """Outputs of each head."""
        return [last_layer(head).out_channels for head in self.head]

    def add(self, count: int) -> nn.Module:
        """Appends a freshly initialised head of `count` classes."""
        head = self._make(count)
        initialize(head, self.plus)
        self.head.append(head.train(self.training))
        return head

    @torch.no_grad()
    def transfer_background(self) -> None:
        """Shares the probability of background evenly between it and the newest head's classes (MiB, sec. 3.3)."""
        background, new = last_layer(self.head[0]), last_layer(self.head[-1])
        assert background.bias is not None and new.bias is not None
        bias = background.bias[0] - math.log(new.out_channels + 1)
        new.weight.copy_(background.weight[:1].expand_as(new.weight))
        new.bias.fill_(bias)
        background.bias[0] = bias

    def transfer_unknown(self) -> None:
        """Copies the unknown head, head 0, to each channel of the newest head (SSUL, weight transfer)."""
        unknown, new = self.head[0], self.head[-1]
        rows = last_layer(new).out_channels
        state = unknown.state_dict()
        state["3.weight"], state["3.bias"] = state["3.weight"].repeat(rows, 1, 1, 1), state["3.bias"].repeat(rows)
        new.load_state_dict(state)

    def _make(self, count: int) -> nn.Module:
        if self.linear:
            return nn.Conv2d(self.features, count, 1)
        return nn.Sequential(*conv_bn_relu(self.features, self.width, 3), nn.Conv2d(self.width, count, 1))


IncrementalNet = SegmentationNet[Heads]


def last_layer(head: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution that gives a head's logits."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(last, nn.Conv2d)
    return last


def initialize(module: nn.Module, plus: bool) -> None:
    """Kaiming-normal convolutions, or with DeepLabV3+ normal ones of deviation PLUS_STD; default biases."""
    if not plus:
        kaiming_normal(module.modules())
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=PLUS_STD)


def forward_with_taps(model: IncrementalNet, image: torch.Tensor) -> tuple[Output, list[torch.Tensor]]:
    """(output, what PLOP distils: the taps of the backbone, the features before dropout, the logits at their size)."""
    levels, taps = model.backbone.taps(image)
    parts = model.decoder.parts(levels)
    features = model.decoder.join(model.decoder.drop(parts))
    cells = model.classifier(features)
    return Output(model.upsample(cells, image.shape[-2:]), features), [*taps, parts[0], cells]


def build_incremental(cfg: Model, heads: Sequence[int], linear: bool, init: str | None = None) -> IncrementalNet:
    """The network that a `model` section describes, with these outputs per head."""
    backbone, plus = build_trunk(cfg, init), cfg.decoder == "deeplabv3plus"
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BACKBONE_MOMENTUM
    decoder = build_decoder(cfg, backbone.channels, refine=False)
    classifier = Heads(decoder.out_channels, heads, cfg.head_channels, linear, plus)
    initialize(decoder, plus)
    initialize(classifier, plus)
    return SegmentationNet(backbone, decoder, classifier, *training_of(cfg, backbone))
