"""The interface of decoders. B batch, D decoder width, h w feature cells."""

from collections.abc import Sequence

import torch
from torch import nn


class Decoder(nn.Module):
    """Levels of a trunk -> one feature map [B, out_channels, h, w].

    forward computes `join(drop(parts(levels)))`. The three steps are separate because SSUL feeds the same features to
    the old network without dropout and to the new one with it.

    out_channels   channels of the feature map
    all_levels     the decoder reads every level of the trunk (strides 4 to 32); otherwise only the last one
    align_corners  bilinear up-sampling of features and logits maps corner pixels to corner pixels
    """

    out_channels: int
    all_levels: bool = True
    align_corners: bool = False
    dropout: nn.Dropout

    def parts(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Everything before the dropout; the first map is the one that dropout acts on."""
        raise NotImplementedError

    def drop(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Dropout of the first map; the identity in evaluation mode."""
        return [self.dropout(parts[0]), *parts[1:]]

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Everything after the dropout."""
        return parts[0]

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Levels from fine to coarse, the last one alone if not `all_levels`."""
        return self.join(self.drop(self.parts(levels)))

    def compile(self, *args, **kwargs) -> None:
        """torch.compile for each layer, because not every caller goes through forward."""
        for layer in self.children():
            layer.compile(*args, **kwargs)
