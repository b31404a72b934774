"""What every backbone has in common."""

import torch
from torch import nn

from utils.errors import UserError


class Backbone(nn.Module):
    """forward: normalised image [B, 3, H, W] -> features [B, out_channels, h, w].

    Subclasses set `out_channels`, `trained` (names of the parts that fine-tuning trains; those before stay as they
    are), `pixel_mean` and `pixel_std` (of 0..255 pixels, as their ImageNet weights expect).
    """

    out_channels: int
    divisor: int = 1  # of the height and width that it takes
    low_channels: int | None = None  # of the features at stride 4, stages()[0], where a backbone offers them
    trained: tuple[str, ...]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(self.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_std).view(1, 3, 1, 1), persistent=False)

    def stages(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features at strides 4, 8, 16, 32 as far as the output stride lets them grow; the last ones are forward's."""
        raise UserError(f"model.backbone: {type(self).__name__} has no features of earlier stages")

    def taps(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(features, what PLOP compares of each stage: before its last activation where there is one)."""
        stages = self.stages(image)
        return stages[-1], stages

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the weights were trained on; a float image is that already."""
        return image if image.is_floating_point() else (image.float() - self.mean) / self.std
