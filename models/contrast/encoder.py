"""Networks of MaskContrast (Van Gansbeke et al., ICCV 2021).

B batch, D embedding, K bank, N images over all processes, H W pixels.
"""

import copy
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.decoders import build_decoder
from models.decoders.base import Decoder
from models.decoders.layers import upsample
from models.output import Output
from models.segmentation import build_trunk
from models.segmentation_files import NCDSS, renamed, strip
from models.segmenter import Segmenter
from models.trunks.base import Backbone
from models.weights import WeightsFile, load_strict, read_weights
from utils.config.common import DeepLab
from utils.config.contrast import ContrastConfig, Encoder
from utils.errors import UserError
from utils.resize import resize_square

QUERY = "model_q."  # prefix of the encoder that is kept
SALIENT = 0.5  # threshold of the saliency logit, not of its probability, in the official evaluation


class ContrastEncoder(nn.Module):
    """Backbone and decoder with two 1x1 heads: pixel embeddings (`head`) and saliency (`classification_head`).

    Both outputs are bilinearly up-sampled to the input size. With `freeze` the backbone does not train: neither its
    weights nor its BatchNorm statistics change.
    """

    def __init__(self, backbone: Backbone, head: nn.Conv2d, decoder: Decoder, freeze: bool = False):
        super().__init__()
        self.backbone, self.head, self.decoder, self.freeze = backbone, head, decoder, freeze
        self.classification_head = nn.Conv2d(decoder.out_channels, 1, 1, bias=False)
        if freeze:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "ContrastEncoder":
        super().train(mode)
        self.backbone.train(mode and not self.freeze)
        return self

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The input of both heads, [B, width, h, w]."""
        levels = self.backbone.levels(image) if self.decoder.all_levels else [self.backbone(image)]
        return self.decoder(levels)

    def forward(self, image: torch.Tensor) -> Output:
        """The saliency logit [B, 1, H, W] and the pixel embedding [B, D, H, W], not normalised."""
        features, size = self.features(image), image.shape[-2:]
        # channels last in memory: the loss reads the channels of a pixel together
        embedding = self.head(features).contiguous(memory_format=torch.channels_last)
        saliency = self.classification_head(features)
        return Output(upsample(saliency, size), upsample(embedding, size))


class ContrastModel(nn.Module):
    """Query encoder, momentum key encoder, and the bank of the last K prototypes (sec. 3.2).

    With `freeze_layers` the backbone's layers up to stride 8 (conv1, bn1, layer1, layer2) do not train in either
    encoder; their running statistics are fixed too.
    """

    queue: torch.Tensor
    queue_ptr: torch.Tensor

    def __init__(
        self, encoder: ContrastEncoder, queue_size: int = 128, momentum: float = 0.999, freeze_layers: bool = False
    ):
        super().__init__()
        self.momentum, self.freeze_layers = momentum, freeze_layers
        self.register_buffer("queue", F.normalize(torch.randn(encoder.head.out_channels, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.model_q, self.model_k = encoder, copy.deepcopy(encoder)
        self.model_k.requires_grad_(False)
        if freeze_layers:
            for layer in early_layers(encoder.backbone):
                layer.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "ContrastModel":
        super().train(mode)
        if self.freeze_layers:
            for layer in (*early_layers(self.model_q.backbone), *early_layers(self.model_k.backbone)):
                layer.eval()
        return self

    def compile(self, *args, **kwargs) -> None:
        self.model_q.compile(*args, **kwargs)
        self.model_k.compile(*args, **kwargs)

    @torch.no_grad()
    def update_key(self) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q for all parameters; BatchNorm statistics are not averaged."""
        torch._foreach_lerp_(list(self.model_k.parameters()), list(self.model_q.parameters()), 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, prototypes: torch.Tensor) -> None:
        """Overwrites the oldest prototypes of the bank by [N, D]; N need not divide K."""
        count, size = len(prototypes), self.queue.shape[1]
        places = (self.queue_ptr + torch.arange(count, device=prototypes.device)) % size
        self.queue[:, places[-size:]] = prototypes[-size:].T.to(self.queue.dtype)
        self.queue_ptr.copy_((self.queue_ptr + count) % size)


def early_layers(backbone: Backbone) -> list[nn.Module]:
    """Leaf modules of a backbone before the parts in `backbone.trained`."""
    later = {module for name in backbone.trained for module in backbone.get_submodule(name).modules()}
    return [module for module in backbone.modules() if module not in later and not list(module.children())]


def build_encoder(cfg: DeepLab, dim: int, init: str | None = None) -> ContrastEncoder:
    """The encoder that a `model` section describes, with embeddings of length `dim`; `init` replaces the section's."""
    backbone = build_trunk(cfg, init)
    head = nn.Conv2d(cfg.head_channels, dim, 1)  # before the decoder, as the official code draws its initial weights
    return ContrastEncoder(backbone, head, build_decoder(cfg, backbone.channels), cfg.freeze)


def load_encoder(cfg: DeepLab, source: Path | WeightsFile) -> ContrastEncoder:
    """The query encoder of a pre-training checkpoint, ours or the official code's, strictly.

    The decoder is that of the file; so is the length of the embedding, unless the section gives it. Raises UserError if
    the file is of another kind, or the encoder is not the one that the section describes.
    """
    file = read_weights(source)
    state = strip(file.state, QUERY)
    if "head.weight" not in state:
        found = f"its keys begin with {file.starts()}"
        raise UserError(f"{file.path}: no MaskContrast encoder ({found}); expected {QUERY}*")
    saved = file.extra.get("config", {}).get("model", {})
    if saved.get("decoder", "deeplabv3") != cfg.decoder:
        cfg = cfg.model_copy(update={key: saved[key] for key in ("decoder", "head_channels") if key in saved})
    dim = cfg.dim if isinstance(cfg, Encoder) else len(state["head.weight"])
    model = build_encoder(cfg, dim, init="random")
    load_strict(model, renamed(state, NCDSS), file.path)
    return model


def load_saliency(file: WeightsFile, config: ContrastConfig) -> Segmenter:
    """The saliency head of a MaskContrast encoder as a segmenter of two classes: background and object."""
    model, resize = load_encoder(config.model, file), partial(resize_square, "image", size=config.data.image_size)
    classes = [(0, "background"), (1, "object")]

    def decide(output: Output) -> torch.Tensor:
        return (output.logits[:, 0] > SALIENT).long()

    return Segmenter(file.path, model, decide, resize, len(classes), classes, len(classes), "MaskContrast encoder")
