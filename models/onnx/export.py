"""Writes a segmenter as an ONNX file and compares the file with the network."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.onnx.network import open_onnx
from models.output import Output
from models.segmenter import Segmenter
from utils import checkpoint
from utils.errors import UserError, missing_package, one_line
from utils.measure.confusion import respond
from utils.measure.protocol import number_table

PACKAGES = "onnx", "onnxscript", "onnxruntime"  # the first two write, the last one reads
TOLERANCE = 1e-4  # of logits, as a share of the largest one
AGREEING = 0.999  # share of pixels; rounding may swap nearly equal logits
SEED = 0  # of the images of the comparison


class Difference(NamedTuple):
    """Torch against the file on the same images: largest difference of logits, largest logit, share of equal pixels."""

    logits: float
    largest: float
    agreeing: float


class Exported(nn.Module):
    """The exported function: uint8 RGB [B, 3, H, W] -> (logits [B, C, H, W], class numbers int64 [B, H, W])."""

    numbers: torch.Tensor

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.model, self.decide = segmenter.model, segmenter.decide
        self.register_buffer("numbers", torch.from_numpy(number_table(segmenter.classes).astype(np.int64)))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = respond(self.model, image)
        return output.logits, self.numbers[self.decide(output)]


def network_size(segmenter: Segmenter, size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the network input for a photograph of this size; None: for a square photograph."""
    height, width = segmenter.resize(np.zeros((*(size or (512, 512)), 3), np.uint8)).shape[:2]
    return height, width


@torch.inference_mode()
def export_onnx(segmenter: Segmenter, target: Path, size: tuple[int, int]) -> Difference:
    """Writes the network for images of `size`, with any batch size; class names go to the file's metadata.

    Raises UserError, and leaves `target` untouched, if the network has no logit per class and pixel, if the exporter
    cannot write it, or if the file computes other values than torch.
    """
    _require_packages()
    network = Exported(segmenter).eval()
    images = _images(2, size)
    if not isinstance(respond(segmenter.model, images), Output):
        raise UserError(f"{segmenter.path}: a mask transformer; --format onnx writes networks with a logit per class")
    expected = network(images)
    with checkpoint.atomic(target) as temporary:
        _write(network, images, temporary, segmenter)
        # another batch size than that of the export: the file must not fix it
        found = open_onnx(temporary, f"{target}")(torch.cat([images, images[:1]]).numpy())
        difference = _compare([part.numpy() for part in expected], [part[: len(images)] for part in found])
        if difference.logits > TOLERANCE * difference.largest or difference.agreeing < AGREEING:
            same = f"{100 * difference.agreeing:.1f} % of the pixels have the same class"
            problem = f"logits differ by up to {difference.logits:.2g} of {difference.largest:.3g}, {same}"
            raise UserError(f"{target}: not written, because its outputs differ from torch's ({problem})")
    return difference


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_package("--format onnx", *PACKAGES) from None


def _images(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Coloured blobs of several scales, uint8 [count, 3, *size]: on white noise all pixels would get one class."""
    draw = torch.Generator().manual_seed(SEED)
    layers = [torch.rand((count, 3, side, side), generator=draw) for side in (3, 9, 33)]
    grown = [nn.functional.interpolate(layer, size=size, mode="bilinear") for layer in layers]
    return (255 * torch.stack(grown).mean(0)).round().to(torch.uint8)


def _write(network: nn.Module, images: torch.Tensor, path: Path, segmenter: Segmenter) -> None:
    about = {
        "classes": json.dumps({number: name for number, name in segmenter.classes}, ensure_ascii=False),
        "input": "RGB, 0 to 255, resized as in the evaluation; nothing is subtracted or divided outside",
    }
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter
            program = torch.onnx.export(
                network,
                (images,),
                input_names=["image"],
                output_names=["logits", "label"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        program.model.metadata_props.update(about)
        program.save(str(path), external_data=False)
    except Exception as error:  # the exporter raises errors of many classes
        raise UserError(f"{segmenter.path}: cannot be written as ONNX ({one_line(error)[:200]})") from None


def _compare(expected: list[np.ndarray], found: list[np.ndarray]) -> Difference:
    (logits, label), (other_logits, other_label) = expected, found
    difference = float(np.abs(logits - other_logits).max())
    return Difference(difference, float(np.abs(logits).max()), float((label == other_label).mean()))
