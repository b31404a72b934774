"""Vision transformers of the optional package timm as backbones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from models.trunks.base import Backbone
from models.weights import load_strict, read_weights
from utils.errors import UserError, missing_package

STRIDES = (4, 8, 16, 32)  # of the levels
PATCH = 16  # image pixels that a patch covers, in `levels`


class VisionTransformer(Backbone):
    """Patch tokens of a timm vision transformer: [B, 3, H, W] -> [B, D, H / patch, W / patch].

    H and W are multiples of the patch size; position embeddings are interpolated to the input. `levels` takes multiples
    of 32 instead.
    """

    trained = ()

    def __init__(self, network: Any, about: Mapping[str, Any]):
        self.pixel_mean = tuple(255 * value for value in about["mean"])
        self.pixel_std = tuple(255 * value for value in about["std"])
        super().__init__()
        self.network = network
        self.channels = (network.num_features,) * len(STRIDES)
        self.patch = tuple(network.patch_embed.patch_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = (side // patch for side, patch in zip(image.shape[-2:], self.patch, strict=True))
        tokens = self.network.forward_features(image)[:, self.network.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Tokens after each quarter of the blocks, bilinearly resized to strides 4, 8, 16 and 32.

        The image is scaled so that a patch covers 16 pixels of it.
        """
        size = [side // PATCH * patch for side, patch in zip(image.shape[-2:], self.patch, strict=True)]
        if size != list(image.shape[-2:]):
            image = resized(image, size)
        depth = len(self.network.blocks)
        blocks = [depth * quarter // len(STRIDES) - 1 for quarter in range(1, len(STRIDES) + 1)]
        maps = self.network.forward_intermediates(image, indices=blocks, norm=True, intermediates_only=True)
        sizes = ([side * PATCH // stride for side in maps[0].shape[-2:]] for stride in STRIDES)
        return [resized(tokens, size) for tokens, size in zip(maps, sizes, strict=True)]


def resized(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """[B, D, h, w] -> [B, D, H, W], bilinearly."""
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def build_vit(name: str, source: str, image_size: int) -> VisionTransformer:
    """A vision transformer for square images. Raises UserError if the patch size does not divide `image_size`."""
    vit = create_vit(name, source)
    if image_size % vit.patch[0] or image_size % vit.patch[1]:
        raise UserError(f"data.image_size={image_size}: model.vit={name} needs a multiple of {vit.patch[0]}")
    return vit


def create_vit(name: str, source: str) -> VisionTransformer:
    """A vision transformer with the weights of a local file; `source` is the path, or random.

    Raises UserError if timm is missing or has no such network, or if the file does not fit.
    """
    try:
        import timm
    except ImportError:
        raise missing_package(f"model.vit={name}:", "timm") from None
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        vit = VisionTransformer(network, network.pretrained_cfg)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"model.vit={name}: not a vision transformer of timm ({reason})") from None
    if source == "imagenet":
        raise UserError(
            f"model.init=imagenet: model.vit={name} reads a local file; give model.init=PATH (probes: checkpoint=PATH)"
        )
    if source != "random":
        state = read_weights(Path(source)).state
        state = {key: value for key, value in state.items() if not key.startswith(("head.", "fc."))}
        load_strict(network, state, source, f"expected weights of {name}; check model.vit")
    return vit
