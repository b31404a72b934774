"""Networks of MaskContrast (Van Gansbeke et al., ICCV 2021), under its key names.

B batch, D embedding, K bank, N images over all processes, H W pixels.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.deeplab import build_decoder
from models.output import Output
from models.segmenter import Segmenter
from models.trunks import build_backbone
from models.trunks.base import Backbone
from models.weights import WeightsFile, load_strict, read_weights
from utils.config.contrast import ContrastConfig
from utils.errors import UserError
from utils.resize import resize_square

QUERY = "model_q."  # prefix of the encoder that is kept
SALIENT = 0.5  # saliency logit, not probability, above which the official evaluation sees an object


class ContrastEncoder(nn.Module):
    """Backbone and DeepLabV3 decoder with two 1x1 heads, on pixel embeddings and on saliency.

    Both are bilinearly up-sampled to the input size. State-dict keys are those of one encoder of the official files.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int = 32,
        atrous_rates: Sequence[int] = (12, 24, 36),
        head_channels: int = 256,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(head_channels, dim, 1)
        self.decoder = build_decoder(backbone.out_channels, atrous_rates, head_channels, dropout)
        self.classification_head = nn.Conv2d(head_channels, 1, 1, bias=False)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> the float input that the backbone was trained on."""
        return self.backbone.normalize(image)

    def forward(self, image: torch.Tensor) -> Output:
        """The saliency logit [B, 1, H, W] and the pixel embedding [B, D, H, W], not normalised."""
        features, size = self.decoder(self.backbone(image)), image.shape[-2:]
        # channels last in memory: what follows runs over the channels of a pixel
        embedding = self.head(features).contiguous(memory_format=torch.channels_last)
        saliency = self.classification_head(features)
        embedding, saliency = (
            F.interpolate(output, size=size, mode="bilinear", align_corners=False) for output in (embedding, saliency)
        )
        return Output(saliency, embedding)


class ContrastModel(nn.Module):
    """Query encoder, key encoder that follows it slowly, and the bank of the last K prototypes (sec. 3.2).

    With `freeze_layers` the backbone's layers up to stride 8 (conv1, bn1, layer1, layer2) stay as they are in both,
    running statistics too.
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
        """theta_k <- m theta_k + (1 - m) theta_q over all parameters; buffers (BatchNorm statistics) stay apart."""
        torch._foreach_lerp_(list(self.model_k.parameters()), list(self.model_q.parameters()), 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, prototypes: torch.Tensor) -> None:
        """Write prototypes [N, D] over the oldest of the bank; N need not divide K."""
        count, size = len(prototypes), self.queue.shape[1]
        places = (self.queue_ptr + torch.arange(count, device=prototypes.device)) % size
        self.queue[:, places[-size:]] = prototypes[-size:].T.to(self.queue.dtype)
        self.queue_ptr.copy_((self.queue_ptr + count) % size)


def early_layers(backbone: Backbone) -> list[nn.Module]:
    """Innermost modules of a backbone in front of the parts that fine-tuning trains."""
    later = {module for name in backbone.trained for module in backbone.get_submodule(name).modules()}
    return [module for module in backbone.modules() if module not in later and not list(module.children())]


def build_encoder(cfg, init: str | None = None, dim: int | None = None) -> ContrastEncoder:
    """The encoder that a `model` section describes (utils/config/contrast.py); `init` and `dim` replace its own."""
    backbone = build_backbone(cfg.backbone, cfg.output_stride, init or cfg.init)
    return ContrastEncoder(backbone, dim or cfg.dim, cfg.atrous_rates, cfg.head_channels, cfg.dropout)


def load_encoder(cfg, source: Path | WeightsFile) -> ContrastEncoder:
    """The query encoder of a pre-training checkpoint, ours or the official code's, strictly.

    A `model` section without `dim`, as other systems have it, takes the file's. Raises UserError for another file, and
    for one that the section does not describe.
    """
    file = read_weights(source)
    state = {key.removeprefix(QUERY): value for key, value in file.state.items() if key.startswith(QUERY)}
    if not state:
        found = f"its keys begin with {file.starts()}"
        raise UserError(f"{file.path}: no MaskContrast encoder ({found}); expected {QUERY}*")
    dim = getattr(cfg, "dim", None) or len(state.get("head.weight", [None]))
    model = build_encoder(cfg, init="random", dim=dim)
    load_strict(model, state, file.path)
    return model


def load_saliency(file: WeightsFile, config: ContrastConfig) -> Segmenter:
    """The saliency head of a MaskContrast encoder: background and object."""
    model, resize = load_encoder(config.model, file), partial(resize_square, "image", size=config.data.image_size)
    classes = [(0, "background"), (1, "object")]

    def decide(output: Output) -> torch.Tensor:
        return (output.logits[:, 0] > SALIENT).long()

    return Segmenter(file.path, model, decide, resize, len(classes), classes, len(classes), "MaskContrast encoder")
