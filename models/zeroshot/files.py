"""Weights files of zero-shot networks: ours of any step, and the official ones of ZS3Net."""

import re
from pathlib import Path

from torch import nn

from models.segmentation import SegmentationNet
from models.segmentation_files import CLASSIFIER, LAST, Tensors, strip
from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

OFFICIAL_LAST = "decoder.pred_conv.weight"
BRANCH = re.compile(r"aspp\.aspp(\d+)\.(atrous_conv|bn)\.(.*)")
REST = {  # prefixes in official files
    "aspp.conv1.": "decoder.aspp.project.0.",
    "aspp.bn1.": "decoder.aspp.project.1.",
    "decoder.conv1.": "decoder.low.0.",
    "decoder.bn1.": "decoder.low.1.",
    "decoder.last_conv.": "decoder.refine.",
    "decoder.pred_conv.": CLASSIFIER,
}


def read_zero_shot(source: Path | WeightsFile) -> WeightsFile:
    """The network in a file of any step, ours or official, under our keys. Raises UserError for any other file."""
    file = read_weights(source)
    state = strip(file.state, "network.") or file.state
    if OFFICIAL_LAST in state:
        state = rename_official(state)
    if LAST not in state or not any(key.startswith("decoder.") for key in state):
        problem = f"not a network of zero-shot segmentation (its keys begin with {file.starts()})"
        raise UserError(f"{file.path}: {problem}; expected backbone.*, decoder.*, classifier.* or aspp.aspp1.*")
    return WeightsFile(file.path, state, file.extra)


def load_zero_shot_network(
    model: SegmentationNet[nn.Conv2d], source: Path | WeightsFile, *, other_classes: bool = False
) -> WeightsFile:
    """Loads a network, strictly; with `other_classes` a classifier of other classes stays as it is.

    Raises UserError that names the file and the first tensor that does not fit.
    """
    file = read_zero_shot(source)
    own, theirs = model.classifier.out_channels, len(file.state[LAST])
    if own == theirs:
        load_strict(model, file.state, file.path)
    elif not other_classes:
        raise UserError(f"{file.path}: has {theirs} outputs, this run needs {own}; check data.dataset")
    else:
        state = {key: value for key, value in file.state.items() if not key.startswith(CLASSIFIER)}
        load_strict(model, state, file.path, leave=(CLASSIFIER,))
    return file


def rename_official(state: Tensors) -> Tensors:
    """Our keys for the tensors of an official network."""
    branches = {match[1] for key in state if (match := BRANCH.fullmatch(key))}
    pooling = f"decoder.aspp.convs.{len(branches)}."

    def rename(key: str) -> str:
        if match := BRANCH.fullmatch(key):
            return f"decoder.aspp.convs.{int(match[1]) - 1}.{int(match[2] == 'bn')}.{match[3]}"
        if key.startswith("aspp.global_avg_pool."):
            return pooling + key.removeprefix("aspp.global_avg_pool.")
        prefix = next((prefix for prefix in REST if key.startswith(prefix)), "")
        return REST.get(prefix, "") + key.removeprefix(prefix)

    return {rename(key): value for key, value in state.items()}
