"""Base class of all backbones. B batch, H W pixels, h w feature cells."""

import torch
from torch import nn


class Backbone(nn.Module):
    """forward: normalised image [B, 3, H, W] -> features of the last level [B, out_channels, h, w].

    Subclasses set
    channels    of the levels that `levels` returns, at strides 4, 8, 16 and 32; the output stride bounds the strides
    trained     names of the parts behind stride 8, which class discovery fine-tunes
    pixel_mean, pixel_std   of pixels 0..255, as the ImageNet weights expect
    """

    channels: tuple[int, ...]
    divisor: int = 1  # height and width of an image must be multiples of it
    trained: tuple[str, ...]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(self.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_std).view(1, 3, 1, 1), persistent=False)

    @property
    def out_channels(self) -> int:
        """Channels of the last level."""
        return self.channels[-1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features at strides 4, 8, 16 and 32, from fine to coarse; no stride exceeds the output stride."""
        raise NotImplementedError

    def taps(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """(levels, what PLOP distils of each level: the values before its last activation, if it has one)."""
        levels = self.levels(image)
        return levels, levels

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the input that the weights were trained on; a float image is returned as it is."""
        return image if image.is_floating_point() else (image.float() - self.mean) / self.std
