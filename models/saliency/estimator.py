"""Saliency networks with the pre- and post-processing of their authors: U²-Net, U²-NetP, BASNet, or an ONNX file."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from models.onnx.network import open_onnx, shown
from models.saliency.basnet import BASNet, share_norm
from models.saliency.u2net import U2NETP, U2Net
from models.weights import load_strict, read_weights
from utils.errors import UserError

NETWORKS: dict[str, Callable[[], U2Net | BASNet]] = {"u2net": U2Net, "u2netp": partial(U2Net, U2NETP), "basnet": BASNet}
SOURCES = {
    "u2net": "u2net.pth of github.com/xuebinqin/U-2-Net",
    "u2netp": "u2netp.pth of github.com/xuebinqin/U-2-Net",
    "basnet": "basnet.pth of github.com/xuebinqin/BASNet",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SaliencyEstimator:
    """Saliency of images of any size. `predict`: normalised [B, 3, *size] -> [B, h, w] of any size."""

    predict: Callable[[torch.Tensor], torch.Tensor]
    size: tuple[int, int]
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray], pool: Executor) -> list[np.ndarray]:
        """RGB uint8 [H, W, 3] each -> float32 [H, W] each, scaled to 0..1 per image."""
        shrunk = np.stack(list(pool.map(partial(_resize, size=self.size), images)))
        batch = normalize(torch.from_numpy(shrunk).to(self.device).permute(0, 3, 1, 2))
        parts = batch.split(1) if self.device.type == "cpu" else (batch,)  # on a CPU as fast, a sixth of the memory
        maps = torch.cat([self.predict(part) for part in parts])
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        stretched = ((maps - low) / (high - low).clamp(min=1e-8)).cpu().numpy()
        return list(pool.map(_resize, stretched, [image.shape[:2] for image in images]))


def load_estimator(model: str, weights: Path | None, device: torch.device) -> SaliencyEstimator:
    """A network with the authors' weights, or an ONNX file. Raises UserError if the weights do not fit."""
    if model.endswith(".onnx"):
        if weights:
            raise UserError(f"--weights {weights}: an ONNX file has its own weights; leave --weights out")
        return SaliencyEstimator(*load_onnx(Path(model)), torch.device("cpu"))
    if model not in NETWORKS:
        raise UserError(f"--model {model}: unknown; use {', '.join(NETWORKS)}, spectral, or a file FILE.onnx")
    if weights is None:
        raise UserError(f"--model {model}: needs --weights FILE ({SOURCES[model]}); --model spectral needs none")
    network = load_network(model, weights).to(device)
    size = (network.side, network.side)
    return SaliencyEstimator(lambda image: network(image).logits[:, 0].sigmoid(), size, device)


def load_network(name: str, path: Path) -> U2Net | BASNet:
    """A network of NETWORKS in evaluation mode, with all weights from a file."""
    network, state = NETWORKS[name]().eval(), read_weights(path).state
    load_strict(network, share_norm(state) if name == "basnet" else state, path, f"expected {SOURCES[name]}")
    return network


def load_onnx(path: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, int]]:
    """(function image [1, 3, *size] on the CPU -> first output [1, h, w] of the ONNX file, that size).

    The size is U²-Net's if the file leaves it open. Outputs outside 0..1 are taken as logits.
    """
    network = open_onnx(path, f"--model {path}")
    if len(network.takes) != 4 or network.takes[1] not in (0, 3):
        raise UserError(f"--model {path}: takes {shown(network.takes)} (0: any size); expected an image, 1x3xHxW")
    size = (network.takes[2] or U2Net.side, network.takes[3] or U2Net.side)

    def predict(image: torch.Tensor) -> torch.Tensor:
        found = network(image.contiguous().numpy())[0]
        if found.ndim not in (3, 4) or set(found.shape[:-2]) != {1}:
            given = f"its first output is {shown(found.shape)}"
            raise UserError(f"--model {path}: cannot be used ({given}); expected one map, 1x1xHxW")
        values = torch.from_numpy(found.reshape(1, *found.shape[-2:])).float()
        return values.sigmoid() if values.amin() < 0 or values.amax() > 1 else values

    return predict, size


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] divided by the maximum of each image, then normalised with ImageNet's mean and deviation."""
    scaled = images.float() / images.amax((1, 2, 3), keepdim=True).clamp(min=1)
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (scaled - mean) / std


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear without anti-aliasing, as scikit-image 0.14 in the authors' scripts."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
