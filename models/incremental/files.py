"""Weights files of class-incremental networks: ours, and the official ones of SSUL, MiB and PLOP."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from models.incremental.inplace_abn import AbnDeepLab, convert_abn, rename_abn
from models.incremental.network import IncrementalNet, build_incremental
from models.segmentation_files import renamed
from models.weights import WeightsFile, load_strict, read_weights
from utils.config.incremental import Model
from utils.errors import UserError

HEAD = re.compile(r"(?:classifier\.head|cls)\.(\d+)(?:\.3)?\.weight")
SSUL = {"classifier.aspp.": "decoder.aspp.", "classifier.project.": "decoder.low."}


@dataclass(frozen=True)
class StepWeights:
    """State dict of the network of a step, under the keys of SegmentationNet or AbnDeepLab."""

    path: Path
    state: dict[str, torch.Tensor]

    @classmethod
    def read(cls, source: Path | WeightsFile) -> "StepWeights":
        """Reads a checkpoint of ours or of the official SSUL, MiB or PLOP code. Raises UserError for any other file."""
        file = read_weights(source)
        abn = "body.mod1.conv1.weight" in file.state
        weights = cls(file.path, rename_abn(convert_abn(file.state)) if abn else renamed(file.state, SSUL))
        if not weights.heads:
            expected = "expected classifier.head.* (ours, SSUL) or body.* and cls.* (MiB, PLOP)"
            found = f"its keys begin with {file.starts()}"
            raise UserError(f"{file.path}: not the network of a step ({found}); {expected}")
        return weights

    @property
    def heads(self) -> tuple[int, ...]:
        """Outputs of each head."""
        found = [(match, value) for key, value in self.state.items() if (match := HEAD.fullmatch(key))]
        return tuple(len(value) for _, value in sorted(found, key=lambda pair: int(pair[0][1])))

    @property
    def in_place_abn(self) -> bool:
        """Whether it is a network of the official MiB or PLOP code."""
        return "cls.0.weight" in self.state

    @property
    def linear(self) -> bool:
        """Whether a head is a 1x1 convolution alone."""
        return self.in_place_abn or "classifier.head.0.weight" in self.state

    @property
    def unknown(self) -> bool:
        """Whether output 0 is the unknown class; otherwise the first head has background and the classes of step 0."""
        return self.heads[0] == 1


def load_incremental(cfg: Model, source: Path | WeightsFile | StepWeights) -> IncrementalNet | AbnDeepLab:
    """The network with the heads of a checkpoint. Raises UserError if section `model` describes another network."""
    weights = source if isinstance(source, StepWeights) else StepWeights.read(source)
    model: IncrementalNet | AbnDeepLab
    if weights.in_place_abn:
        model = AbnDeepLab(cfg.backbone, cfg.output_stride, weights.heads)
    else:
        model = build_incremental(cfg, weights.heads, weights.linear, init="random")
    load_strict(model, weights.state, weights.path, "check section model and the task")
    return model
