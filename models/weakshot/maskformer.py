"""MaskFormer (Cheng et al., NeurIPS 2021) on any backbone with stages: a set of masks, each with a class.

B images, Q queries (proposals), K classes, L decoder layers, D width, H W pixels, h w cells at stride 4.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.trunks.frozen_batchnorm import freeze_batchnorm
from models.trunks.imagenet import load_imagenet
from models.trunks.vit import create_vit
from models.weakshot.mask_decoder import MaskEmbedding, PixelDecoder, QueryDecoder, xavier
from models.weakshot.maskformer_files import backbone_file
from utils.config.weakshot import MaskTransformer
from utils.recipe import trainable

DIVISOR = 32  # images are padded to multiples of it
SHARPNESS = 1 / 0.07  # of the cosines at the start, as in CLIP (Radford et al., ICML 2021)
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class MaskOutput:
    """Proposals of the decoder layers; the last layer's are the result.

    class_logits  [L, B, Q, K + 1], the last class is "no object"
    mask_logits   [L, B, Q, h, w]
    features      [B, D, h, w], pixel embeddings; masks are their products with the mask embeddings
    size          (H, W) of the images before they were padded
    padded        (H, W) of the padded images; h, w are a quarter of it
    """

    class_logits: torch.Tensor
    mask_logits: torch.Tensor
    features: torch.Tensor
    size: tuple[int, int]
    padded: tuple[int, int]


class MaskFormer(nn.Module):
    """Keys: backbone.*, pixel_decoder.*, decoder.*, query_embed, input_proj, class_embed, mask_embed.*

    BatchNorm of the backbone is fixed, affine weights included; everything else trains. With word vectors [K, E] of the
    classes, proposals are classified by WordClasses.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        queries: int = 100,
        layers: int = 6,
        width: int = 256,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        vectors: torch.Tensor | None = None,
    ):
        super().__init__()
        freeze_batchnorm(backbone)
        channels = backbone.channels
        self.backbone = backbone
        self.pixel_decoder = PixelDecoder(channels, width)
        self.input_proj = nn.Conv2d(channels[-1], width, 1)
        self.query_embed = nn.Embedding(queries, width)
        self.decoder = QueryDecoder(layers, width, heads, feedforward, dropout)
        self.class_embed = nn.Linear(width, num_classes + 1) if vectors is None else WordClasses(width, vectors)
        self.mask_embed = MaskEmbedding(width)
        xavier(self.input_proj)

    @property
    def num_classes(self) -> int:
        return int(self.class_embed.out_features) - 1

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def forward(self, image: torch.Tensor, every_layer: bool | None = None) -> MaskOutput:
        """Proposals for normalised images [B, 3, H, W]; sides are padded with zeros to multiples of 32.

        With `every_layer` the proposals of all layers are returned (deep supervision), otherwise those of the last one;
        the default is True in training mode.
        """
        height, width = image.shape[-2:]
        if height % DIVISOR or width % DIVISOR:
            image = F.pad(image, (0, -width % DIVISOR, 0, -height % DIVISOR))
        levels = self.backbone.levels(image)
        features = self.pixel_decoder(levels)
        every_layer = self.training if every_layer is None else every_layer
        decoded = self.decoder(self.query_embed.weight, self.input_proj(levels[-1]), every_layer)
        masks = torch.einsum("lbqd,bdhw->lbqhw", self.mask_embed(decoded), features)
        padded = (image.shape[-2], image.shape[-1])
        return MaskOutput(self.class_embed(decoded), masks, features, (height, width), padded)

    def decoder_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def backbone_parameters(self) -> list[nn.Parameter]:
        return trainable(self.backbone)


class WordClasses(nn.Module):
    """Class logits from word vectors: logits [..., K + 1] = s cos(W x + b, v_c), x [..., D].

    v_c are the fixed word vectors [K, E] of the classes and a learned vector of "no object"; the scale s is learned.
    Replacing the vectors by others of the same word space replaces the classes.
    """

    vectors: torch.Tensor

    def __init__(self, width: int, vectors: torch.Tensor):
        super().__init__()
        self.project = nn.Linear(width, vectors.shape[1])
        self.nothing = nn.Parameter(F.normalize(torch.randn(vectors.shape[1]), dim=0))
        self.scale = nn.Parameter(torch.tensor(SHARPNESS))
        self.register_buffer("vectors", vectors.float().clone())

    @property
    def out_features(self) -> int:
        return len(self.vectors) + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = F.normalize(torch.cat([self.vectors, self.nothing[None]]), dim=1)
        return self.scale * (F.normalize(self.project(x).float(), dim=-1) @ words.T)


class Rates(Protocol):
    """The attributes of utils.config.common.Training that parameter groups use."""

    @property
    def lr(self) -> float: ...

    @property
    def backbone_lr_factor(self) -> float: ...


def maskformer_groups(model: nn.Module, settings: Rates) -> list[dict[str, Any]]:
    """Parameter groups of a MaskFormer, or of a module that holds one: backbone and the rest at their rates.

    Norm layers and the query embedding are not decayed; biases are.
    """
    parts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        within, plain = "backbone" in name.split("."), isinstance(module, (*NORMS, nn.Embedding))
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        parts.setdefault((within, plain), []).extend(own)
    groups = []
    for (within, plain), parameters in sorted(parts.items()):
        group = {
            "name": ("backbone" if within else "decoder") + (" without decay" if plain else ""),
            "params": parameters,
            "lr": settings.lr * (settings.backbone_lr_factor if within else 1),
        }
        groups.append(group | ({"weight_decay": 0.0} if plain else {}))
    return [group for group in groups if group["params"]]


def build_maskformer(
    cfg: Any, num_classes: int, init: str | None = None, vectors: torch.Tensor | None = None
) -> MaskFormer:
    """The network that a `model` section describes: backbone, vit, output_stride, init, freeze, queries, layers, width,
    heads, feedforward, dropout. `init` takes the place of the section's; a file may be detectron2's (R-50.pkl), too.
    """
    backbone = _backbone(cfg, init or cfg.init)
    backbone.requires_grad_(not cfg.freeze)
    sizes = cfg.queries, cfg.layers, cfg.width, cfg.heads, cfg.feedforward, cfg.dropout
    return MaskFormer(backbone, num_classes, *sizes, vectors)


def _backbone(cfg: MaskTransformer, init: str) -> Backbone:
    if cfg.backbone == "vit":
        return create_vit(cfg.vit, init)
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init if init == "imagenet" else "random")
    if init not in ("imagenet", "random"):
        load_imagenet(backbone, cfg.backbone, backbone_file(Path(init)))
    return backbone
