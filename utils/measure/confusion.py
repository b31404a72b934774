"""One pass over a validation set: confusion matrices of label maps, at the network's size and at file size.

B images, M label maps of each (networks, seeds), h w size of the maps.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from utils import dist
from utils.background import Background
from utils.measure.metrics import confusion_matrix
from utils.run import Run

Maps = torch.Tensor | Sequence[np.ndarray]  # [B, M, h, w], or one [M, h, w] of any size per image
Save = Callable[[int, np.ndarray], None]  # (index in the data set, the image's first label map at file size)


class Labelled(Protocol):
    """A data set that reads labels at file size."""

    def native(self, index: int) -> np.ndarray: ...


class Counts(NamedTuple):
    """Confusion matrices int64 [M, true classes, outputs], summed over processes; None if not requested."""

    network: torch.Tensor | None  # at network resolution
    native: torch.Tensor | None  # at file size


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; restores the mode of every module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def respond(network: nn.Module, images: torch.Tensor) -> Any:
    """Output of a network for images [B, 3, H, W], uint8, or float and already normalised."""
    return network(network.normalize(images))  # type: ignore[operator]  # a module's attribute, to a checker a tensor


@torch.inference_mode()
def predict(
    forward: Callable[[torch.Tensor], Any], model: nn.Module, loader, run: Run, title: str
) -> Iterator[tuple[dict, Any]]:
    """(batch, forward(images)) over a loader, in evaluation mode; images arrive on the device as uint8 [B, 3, H, W]."""
    with eval_mode(model):
        for batch in tqdm(loader, desc=title, leave=False, disable=None if dist.is_main() else True):
            images = batch["image"].to(run.device, non_blocking=True)
            with run.autocast():
                output = forward(images)
            yield batch, output


def count(
    predictions: Iterable[tuple[dict, Maps]],
    shape: tuple[int, int, int],
    run: Run,
    *,
    truth: str = "label",
    later: int | None = None,
    native: Labelled | None = None,
    network: bool = True,
    save: Save | None = None,
) -> Counts:
    """Confusion matrices of label maps, `shape` = (M, true classes, outputs), over (batch, maps) of this process.

    network   count at the size of the maps, against the batch's field `truth`
    native    also count at file size, against the batch's field "native", or the labels of this data set
    later     how labels of classes without a row count: 255 ignores them, a row number adds them there; None: an error
    save      with `native`, called with the first map of every image at file size
    """
    _, num_true, num_outputs = shape
    fine = torch.zeros(shape, dtype=torch.int64)
    coarse = torch.zeros(shape, dtype=torch.int64, device=run.device)
    with Background() as background:
        for batch, maps in predictions:
            if network:
                assert isinstance(maps, torch.Tensor)  # maps of several sizes have no truth but the files
                label = batch[truth].to(run.device, non_blocking=True)
                for place, found in enumerate(maps.unbind(1)):
                    coarse[place] += confusion_matrix(found, label, num_outputs, num_true, later)
            if native is not None:
                arrays = small(maps, num_outputs).cpu().numpy() if isinstance(maps, torch.Tensor) else maps
                for index, label, found in zip(
                    batch["index"].tolist(), native_labels(batch, native), arrays, strict=True
                ):
                    keep = save and partial(background.call, save, index)
                    fine += image_confusion(label, found, num_true, num_outputs, later, keep)
    return Counts(
        dist.sum_(coarse).cpu() if network else None,
        dist.sum_(fine.to(run.device)).cpu() if native is not None else None,
    )


def image_confusion(
    label: np.ndarray,
    maps: np.ndarray,
    num_true: int,
    num_outputs: int,
    later: int | None = None,
    save: Callable[[np.ndarray], None] | None = None,
) -> torch.Tensor:
    """Confusion matrices of the maps of one image, int64 [M, num_true, num_outputs].

    maps [M, h, w] are resized to the label [H, W] by nearest neighbour; `save` is called with the first one.
    """
    resized = [at_size(values, label.shape) for values in maps]
    if save:
        save(resized[0])
    truth = torch.from_numpy(label.astype(np.int32) if label.dtype == np.uint16 else label)
    return torch.stack([confusion_matrix(torch.from_numpy(p), truth, num_outputs, num_true, later) for p in resized])


def native_labels(batch: dict, images: Labelled) -> Iterator[np.ndarray]:
    """Labels of a batch at file size: those in the batch, else read from disk."""
    if "native" in batch:
        return (label.numpy() for label in batch["native"])
    return map(images.native, batch["index"].tolist())


def at_size(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A label map at (H, W) by nearest neighbour, as the official evaluations resize it."""
    height, width = size
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)


def small(maps: torch.Tensor, num_outputs: int) -> torch.Tensor:
    """Label maps in a type that OpenCV resizes: uint8, or int32 for more than 256 outputs."""
    return maps.to(torch.uint8 if num_outputs <= 256 else torch.int32)
