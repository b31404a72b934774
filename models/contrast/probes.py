"""Frozen networks whose features are evaluated, and the linear probe on them.

B batch, C classes, D features, H W pixels, h w feature cells.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.contrast.encoder import SALIENT, ContrastEncoder, build_encoder, load_encoder
from models.decoders.base import Decoder
from models.segmentation import SegmentationNet
from models.segmentation_files import is_network, load_network, read_network, rename
from models.segmenter import Segmenter, square_segmenter
from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.trunks.vit import build_vit
from models.weights import WeightsFile, read_weights
from utils.config.probe import ProbeConfig
from utils.errors import UserError

PROBE_STD = 0.01  # of the initial weights


class Described(NamedTuple):
    features: torch.Tensor  # [B, D, h, w], not normalised
    weight: torch.Tensor | None  # [B, H, W], positive on the object; None without a saliency head


class FeatureNetwork(nn.Module):
    """Pixel embeddings and foreground of a MaskContrast encoder, or features of a trunk or a segmentation network.

    The features of a segmentation network are the input of its classifier.
    """

    def __init__(self, network: ContrastEncoder | Backbone | SegmentationNet[nn.Conv2d]):
        super().__init__()
        self.network = network
        self.has_head = isinstance(network, ContrastEncoder)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the network was trained on."""
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> Described:
        if isinstance(self.network, SegmentationNet):
            return Described(self.network(image).embedding, None)
        if not isinstance(self.network, ContrastEncoder):
            return Described(self.network(image), None)
        features = self.network.features(image)
        saliency = self.network.classification_head(features)
        return Described(self.network.head(features), foreground_weight(saliency, image.shape[-2:]))


def foreground_weight(saliency: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Saliency logits [B, 1, h, w], up-sampled to (H, W) and set to 0 unless above SALIENT: [B, H, W]."""
    logits = F.interpolate(saliency.float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    return torch.where(logits > SALIENT, logits, 0)


class LastLevel(Decoder):
    """No decoder: the last level of the backbone is the feature map."""

    all_levels = False

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels, self.dropout = channels, nn.Dropout(0)

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [levels[-1]]


class LinearProbe(SegmentationNet[nn.Conv2d]):
    """A segmentation network whose classifier alone trains. All of it stays in evaluation mode, without dropout."""

    def __init__(self, backbone: Backbone, decoder: Decoder, num_classes: int):
        super().__init__(backbone, decoder, nn.Conv2d(decoder.out_channels, num_classes, 1), trained=())
        decoder.requires_grad_(False)
        nn.init.normal_(self.classifier.weight, std=PROBE_STD)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def train(self, mode: bool = True) -> "LinearProbe":
        nn.Module.train(self, False)
        return self

    @torch.no_grad()
    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The output of the frozen part, [B, D, h, w]."""
        return super().features(image)


def build_features(cfg: ProbeConfig) -> FeatureNetwork:
    """The frozen network that `model` and `checkpoint` describe."""
    network = _encoder(cfg) if cfg.model.is_encoder else _backbone(cfg)
    return FeatureNetwork(network).requires_grad_(False).eval()


def build_probe(cfg: ProbeConfig, num_classes: int) -> LinearProbe:
    """A fresh linear probe on the network that `model` and `checkpoint` describe."""
    network = _encoder(cfg) if cfg.model.is_encoder else _backbone(cfg)
    return _probe_on(network, num_classes)


def load_probe(cfg: ProbeConfig, path: Path | WeightsFile, num_classes: int) -> LinearProbe:
    """A trained linear probe, ours or official. Raises UserError if it does not fit `model` or the classes."""
    network = cfg.model.model_copy(update={"init": "random"})
    if cfg.model.is_encoder:
        probe = _probe_on(build_encoder(network, cfg.model.dim), num_classes)
    else:
        probe = _probe_on(_backbone(cfg.model_copy(update={"model": network, "checkpoint": None})), num_classes)
    load_network(probe, path)
    return probe


def _probe_on(network: ContrastEncoder | Backbone, num_classes: int) -> LinearProbe:
    if isinstance(network, ContrastEncoder):
        return LinearProbe(network.backbone, network.decoder, num_classes)
    return LinearProbe(network, LastLevel(network.out_channels), num_classes)


def is_probe(cfg: ProbeConfig, path: Path | WeightsFile) -> bool:
    """Whether a file is a trained linear probe on this kind of network, rather than the network to probe."""
    _, state = rename(read_weights(path).state)
    return is_network(state) and any(key.startswith("decoder.") for key in state) == cfg.model.is_encoder


def _encoder(cfg: ProbeConfig) -> ContrastEncoder:
    if cfg.model.kind == "untrained":
        if cfg.checkpoint:
            raise UserError("checkpoint: not with model.kind=untrained, which takes its backbone from model.init=FILE")
        return build_encoder(cfg.model, cfg.model.dim)
    if not cfg.checkpoint:
        raise UserError(
            "checkpoint: model.kind=maskcontrast needs a pre-training checkpoint; model.kind=backbone takes model.init"
        )
    return load_encoder(cfg.model, cfg.checkpoint)


def _backbone(cfg: ProbeConfig) -> Backbone:
    source = str(cfg.checkpoint or cfg.model.init)
    if cfg.model.kind == "vit":
        return build_vit(cfg.model.vit, source, cfg.data.image_size)
    return build_backbone(cfg.model.backbone, cfg.model.output_stride, source)


def load_linear(file: WeightsFile, config: ProbeConfig) -> Segmenter:
    """A linear probe as a segmenter; its input is resized to a square."""
    weights = read_network(file)
    model = load_probe(config, file, weights.num_classes)
    return square_segmenter(file, model, config, weights.num_classes, f"linear probe, {weights.flavour}")
