"""Frozen networks for evaluating their features: what describes objects, and the linear probe on top.

B batch, C classes, D features, H W pixels, h w feature cells.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.contrast.encoder import SALIENT, ContrastEncoder, build_encoder, load_encoder
from models.deeplab_files import load_deeplab, read_deeplab
from models.output import Output
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
    """Pixel embeddings and foreground of a MaskContrast encoder, or the features of a backbone."""

    def __init__(self, network: ContrastEncoder | Backbone):
        super().__init__()
        self.network = network
        self.has_head = isinstance(network, ContrastEncoder)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> Described:
        if not isinstance(self.network, ContrastEncoder):
            return Described(self.network(image), None)
        shared = self.network.decoder(self.network.backbone(image))
        return Described(
            self.network.head(shared), foreground_weight(self.network.classification_head(shared), image.shape[-2:])
        )


def foreground_weight(saliency: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Saliency logits [B, 1, h, w] at (H, W), 0 where they are not above SALIENT: [B, H, W]."""
    logits = F.interpolate(saliency.float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    return torch.where(logits > SALIENT, logits, 0)


class LinearProbe(nn.Module):
    """A frozen network and a 1x1 convolution that trains; the whole network stays in evaluation mode, so no dropout.

    Keys are those of DeepLabV3 (backbone.*, classifier.*), so that an official linear probe is read like any other
    file; without a decoder only classifier.4 is there.
    """

    def __init__(self, backbone: Backbone, decoder: nn.Sequential | None, channels: int, num_classes: int):
        super().__init__()
        self.backbone = backbone
        before = decoder if decoder is not None else [nn.Identity() for _ in range(4)]
        last = nn.Conv2d(channels, num_classes, 1)
        self.classifier = nn.Sequential(*before, last)
        self.requires_grad_(False)
        nn.init.normal_(last.weight, std=PROBE_STD)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.last.requires_grad_(True)
        self.train()

    @property
    def last(self) -> nn.Conv2d:
        last = self.classifier[4]
        assert isinstance(last, nn.Conv2d)
        return last

    def train(self, mode: bool = True) -> "LinearProbe":
        return super().train(False)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    @torch.no_grad()
    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """The frozen part: [B, D, h, w]."""
        return self.classifier[:4](self.backbone(image))

    def forward(self, image: torch.Tensor) -> Output:
        embedding = self.embed(image)
        return Output(self.classify(self.last, embedding, image.shape[-2:]), embedding)

    @staticmethod
    def classify(last: nn.Conv2d, embedding: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """Logits [B, C, H, W], bilinearly up-sampled; classes last in memory, where the loss reads them together."""
        logits = last(embedding).contiguous(memory_format=torch.channels_last)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def build_features(cfg: ProbeConfig) -> FeatureNetwork:
    """The network that `model` and `checkpoint` describe, frozen."""
    network = _encoder(cfg) if cfg.model.is_encoder else _backbone(cfg)
    return FeatureNetwork(network).requires_grad_(False).eval()


def build_probe(cfg: ProbeConfig, num_classes: int) -> LinearProbe:
    """A fresh linear probe on the network that `model` and `checkpoint` describe."""
    network = _encoder(cfg) if cfg.model.is_encoder else _backbone(cfg)
    return _probe_on(network, num_classes)


def load_probe(cfg: ProbeConfig, path: Path | WeightsFile, num_classes: int) -> LinearProbe:
    """A trained linear probe, ours or the official code's; UserError when it does not fit `model` or the classes."""
    network = cfg.model.model_copy(update={"init": "random"})
    if cfg.model.is_encoder:
        probe = _probe_on(build_encoder(network), num_classes)
    else:
        probe = _probe_on(_backbone(cfg.model_copy(update={"model": network, "checkpoint": None})), num_classes)
    load_deeplab(probe, path)
    return probe


def _probe_on(network: ContrastEncoder | Backbone, num_classes: int) -> LinearProbe:
    if isinstance(network, ContrastEncoder):
        return LinearProbe(network.backbone, network.decoder, network.head.in_channels, num_classes)
    return LinearProbe(network, None, network.out_channels, num_classes)


def is_probe(cfg: ProbeConfig, path: Path | WeightsFile) -> bool:
    """Whether a file is a trained linear probe on this kind of network, and not the network to probe."""
    state = set(read_weights(path).state)
    has_last = bool(state & {"classifier.4.weight", "decoder.4.weight"})
    has_decoder = any(key.startswith(("classifier.0.", "decoder.0.")) for key in state)
    return has_last and has_decoder == cfg.model.is_encoder


def _encoder(cfg: ProbeConfig) -> ContrastEncoder:
    if cfg.model.kind == "untrained":
        if cfg.checkpoint:
            raise UserError("checkpoint: not with model.kind=untrained, which takes its backbone from model.init=FILE")
        return build_encoder(cfg.model)
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
    """A linear probe; it sees the image as a square."""
    weights = read_deeplab(file)
    model = load_probe(config, file, weights.num_classes)
    return square_segmenter(file, model, config, weights.num_classes, f"linear probe, {weights.flavour}")
