"""Frozen vision transformers of the package timm as backbones (an optional extra)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.backbones.base import Backbone
from models.weights import load_strict, read_weights
from utils.errors import UserError, missing_package


class VisionTransformer(Backbone):
    """Patch tokens of a timm vision transformer: [B, 3, H, W] -> [B, D, H / patch, W / patch].

    H and W are multiples of the patch size; position embeddings are interpolated to the input.
    """

    trained = ()

    def __init__(self, network: Any, about: Mapping[str, Any]):
        self.pixel_mean = tuple(255 * value for value in about["mean"])
        self.pixel_std = tuple(255 * value for value in about["std"])
        super().__init__()
        self.network = network
        self.out_channels = network.num_features
        self.patch = tuple(network.patch_embed.patch_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = (side // patch for side, patch in zip(image.shape[-2:], self.patch, strict=True))
        tokens = self.network.forward_features(image)[:, self.network.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, (height, width))


def build_vit(name: str, source: str, image_size: int) -> VisionTransformer:
    """A vision transformer with the weights of a local file; `source` is its path, or random.

    Raises UserError when timm is not installed or has no such network, when the file does not fit, and when
    `image_size` is no multiple of the patch size.
    """
    try:
        import timm
    except ImportError:
        raise missing_package("model.kind=vit:", "timm") from None
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        vit = VisionTransformer(network, network.pretrained_cfg)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"model.vit={name}: not a vision transformer of timm ({reason})") from None
    if image_size % vit.patch[0] or image_size % vit.patch[1]:
        raise UserError(f"data.image_size={image_size}: model.vit={name} needs a multiple of {vit.patch[0]}")
    if source == "imagenet":
        raise UserError(
            "model.init=imagenet: model.kind=vit reads a local file; give checkpoint=PATH or model.init=PATH"
        )
    if source != "random":
        state = read_weights(Path(source)).state
        state = {key: value for key, value in state.items() if not key.startswith(("head.", "fc."))}
        load_strict(network, state, source, f"expected weights of {name}; check model.vit")
    return vit
