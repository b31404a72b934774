"""The decoders: levels of a trunk -> one feature map."""

from collections.abc import Sequence

from models.decoders.base import Decoder
from models.decoders.deeplabv3 import DeepLabV3
from models.decoders.deeplabv3plus import DeepLabV3Plus, HeadlessDeepLabV3Plus
from models.decoders.mlp import MlpDecoder
from utils.config.common import DeepLab


def build_decoder(cfg: DeepLab, channels: Sequence[int], refine: bool = True) -> Decoder:
    """The decoder that a `model` section describes, for a trunk whose levels have these channels.

    Without `refine` a DeepLab decoder leaves its 3x3 convolutions to the classifier (SSUL's heads have their own).
    """
    rates, width, dropout = cfg.atrous_rates, cfg.head_channels, cfg.dropout
    if cfg.decoder == "mlp":
        return MlpDecoder(channels, width, dropout)
    if cfg.decoder == "deeplabv3":
        return DeepLabV3(channels, rates, width, dropout, refine)
    plus = DeepLabV3Plus if refine else HeadlessDeepLabV3Plus
    return plus(channels, rates, width, dropout, cfg.low_channels)
