"""A row of the table, and the inputs and checks that rows share."""

import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.io import write_label
from data.layouts import Sample

CROP, SQUARE, VIEW, STRIDE = 513, 512, 224, 16  # pixels: SSUL, NCDSS, MaskContrast; feature stride
PHOTO = (375, 500)  # height and width of most VOC images
CLASSES = 4  # in the labels of photographs


@dataclass(frozen=True)
class Row:
    """Two functions without arguments that do the same work `count` times.

    same  raises AssertionError if the results of both differ
    note  what differs between both ways, if anything
    """

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    count: int = 1
    same: Callable[[], None] | None = None
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """MiB of the tensors that a function makes and holds at once, by the released way and by ours."""

    name: str
    theirs: float
    ours: float


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


# ---- checks


def close(name: str, theirs: Callable, ours: Callable, count: int = 1, atol: float = 1e-6, note: str = "") -> Row:
    """A row that checks that both ways give the same values up to rounding."""

    def same() -> None:
        torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=atol, check_dtype=False)

    return Row(name, theirs, ours, count, same, note)


def agree(name: str, theirs: Callable, ours: Callable, count: int = 1, note: str = "") -> Row:
    """A row that checks that both ways give the same classes, but for ties that rounding decides."""

    def same() -> None:
        one, other = (found if isinstance(found, list) else [found] for found in (theirs(), ours()))
        for a, b in zip(one, other, strict=True):
            assert a.shape == b.shape and (a != b).float().mean() < 1e-5

    return Row(name, theirs, ours, count, same, note)


def gradient(loss: Callable[..., torch.Tensor], leaf: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """The gradient of a loss with respect to its first argument."""
    leaf = leaf.detach().requires_grad_()
    loss(leaf, *arguments).backward()
    assert leaf.grad is not None
    return leaf.grad


# ---- memory


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors made inside the block that are alive at once, without the storages of `own`."""

    def __init__(self, own: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self.sizes = {_place(tensor): 0 for tensor in own}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and _place(tensor) not in self.sizes:
                storage, place = tensor.untyped_storage(), _place(tensor)
                self.sizes[place] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, place)
        return made

    def _free(self, place: int) -> None:
        self.live -= self.sizes.pop(place)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_mib(work: Callable[[], Any], *own: torch.Tensor) -> float:
    """MiB of the tensors that a call makes and holds at once, without those of `own`."""
    with PeakMemory(own) as found:
        work()
    return found.peak / 2**20


# ---- inputs


def cells(classes: int, images: int, size: int, stride: int = STRIDE) -> torch.Tensor:
    """Logits of feature cells [B, C, h, w] for images of size x size pixels."""
    side = -(-size // stride)
    return torch.randn(images, classes, side, side) * 2 - 1


def blocks(classes: int, images: int, size: int, cell: int = 32) -> torch.Tensor:
    """Labels int64 [B, size, size] of squares, a twentieth of them ignored."""
    few = torch.randint(0, classes, (images, -(-size // cell), -(-size // cell)))
    few[torch.rand(few.shape) < 0.05] = 255
    return few.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :size, :size].contiguous()


def photographs(folder: Path, number: int) -> list[Sample]:
    """Drawn JPEGs of VOC's image and file size (about 90 kB), each with a label, a pseudo-label and a saliency map."""
    rng, samples = np.random.default_rng(0), []
    height, width = PHOTO
    for name in map(str, range(number)):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 12, width // 12, 3), np.uint8)).resize((width, height))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-10, 11, (height, width, 1))
        paths = {kind: folder / f"{name}_{kind}.png" for kind in ("label", "saliency", "pseudo")}
        mask = np.zeros(PHOTO, np.uint8)
        mask[90:290, 120:370] = 1
        squares = rng.integers(0, CLASSES, (height // 25, width // 25), np.uint8).repeat(25, 0).repeat(25, 1)
        for kind, path in paths.items():
            write_label(path, mask if kind == "saliency" else squares)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=90)
        samples.append(Sample(name, folder / f"{name}.jpg", **paths))
    return samples
