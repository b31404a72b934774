"""The network of weak-shot training: a MaskFormer, with SimNet for image pairs; its checkpoints as segmenters."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from models.segmenter import Segmenter, saved_classes
from models.weakshot.mask_scores import View, predict_classes, see, semantic_scores
from models.weakshot.maskformer import MaskFormer, MaskOutput, build_maskformer
from models.weakshot.maskformer_files import load_maskformer, read_maskformer
from models.weakshot.simnet import SimNet
from models.weights import WeightsFile
from utils.config.weakshot import WeakShotConfig
from utils.errors import UserError
from utils.resize import resize_edge, shortest_edge


class WeakShotNet(nn.Module):
    """Keys: network.*, which segments, and simnet.*, which is used in training only."""

    def __init__(self, network: MaskFormer, simnet: SimNet | None = None):
        super().__init__()
        self.network, self.simnet = network, simnet

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> MaskOutput:
        """Proposals for normalised images [B, 3, H, W]."""
        return self.network(image)


class AugmentedNet(nn.Module):
    """Test-time augmentation: a MaskFormer on an image at several sizes (shorter side, pixels), each also mirrored."""

    def __init__(self, network: MaskFormer, sizes: Sequence[int], longest: int):
        super().__init__()
        self.network, self.sizes, self.longest = network, tuple(sizes), longest

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the image unchanged: each version is normalised separately."""
        return image

    def forward(self, image: torch.Tensor) -> list[View]:
        """uint8 [1, 3, H, W]. Raises UserError for more than one image."""
        if len(image) > 1:
            raise UserError(f"batch_size={len(image)}: test-time augmentation takes images one at a time; set it to 1")
        return see(self.network, image, [shortest_edge(image.shape[-2:], size, self.longest) for size in self.sizes])


def build_weak_shot(
    cfg: Any, num_classes: int, pairs: bool = False, init: str | None = None, vectors: torch.Tensor | None = None
) -> WeakShotNet:
    """The network that a `model` section describes, see build_maskformer; `pairs` adds SimNet for image pairs."""
    network = build_maskformer(cfg, num_classes, init, vectors)
    simnet = SimNet(cfg.width, cfg.simnet_width, cfg.simnet_blocks, cfg.simnet_norm) if pairs else None
    return WeakShotNet(network, simnet)


def decide(output: MaskOutput | list[View], size: Sequence[int] | None = None) -> torch.Tensor:
    """The class with the highest score per pixel, at `size`; the default is the size of the largest view."""
    if size is None and not isinstance(output, MaskOutput):
        size = max(view.output.size for view in output)
    return predict_classes(output, size)


def certainty(output: MaskOutput | list[View], size: Sequence[int] | None = None) -> torch.Tensor:
    """The highest score of each pixel [B, H, W] at `size`, at most 1: scores of several proposals add up."""
    if size is None and not isinstance(output, MaskOutput):
        size = max(view.output.size for view in output)
    return semantic_scores(output, size).amax(1).clamp(max=1)


def load_weak_shot(file: WeightsFile, config: WeakShotConfig) -> Segmenter:
    """A MaskFormer, ours or official; its input is resized to the shorter side of the evaluation."""
    weights, options = read_maskformer(file), config.evaluation
    outputs = weights.num_classes
    network = build_maskformer(config.model, outputs, "random", weights.vectors)
    load_maskformer(network, file)
    model = AugmentedNet(network, options.tta_sizes, options.tta_longest) if options.tta else network
    resize = partial(resize_edge, size=options.size, longest=config.data.longest)
    classes = saved_classes(file, outputs)
    return Segmenter(file.path, model, decide, resize, outputs, *classes, weights.flavour, certainty=certainty)
