"""What the training of a configuration needs on one GPU: hours and memory, estimated, not measured.

Counts the floating-point operations of a step of every stage at its batch size, and the bytes of all tensors that are
alive at once, in bf16 on tensors without storage: no GPU, no weights, no data. Steps and images are those of the
shipped lists, or of data.root. The rate at which images are read is measured here, on JPEGs of VOC's size. Passes
without training (clustering, ranking, the last evaluation) are left out: training makes dozens of them. So is the time
of what moves memory and computes little (BatchNorm, up-sampling): the hours are rather a lower bound.

    python -m benchmarks.cost configs/discovery/pascal.yaml
    python -m benchmarks.cost configs/incremental/voc.yaml task=15-1 method=ssul
"""

import contextlib
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost_stages import STAGES, Read, Stage
from data.dataset import SegmentationDataset
from data.io import write_label
from data.layouts import Sample
from losses import ssul, upsampled
from models.incremental.network import class_scores
from utils.checkpoint import write_list
from utils.config.reader import load_config
from utils.measure.confusion import eval_mode, respond
from utils.recipe import Recipe
from utils.report.tables import table

GPU, PEAK = "A100", 312e12  # bf16 with float32 sums, floating-point operations per second (NVIDIA's data sheet)
SHARE = 0.4  # of the peak that convolutional networks of this size reach
CONTEXT = 0.6 * 2**30  # bytes of CUDA's context and cuDNN's workspace
FRAGMENTS = 1.1  # what the allocator loses
PHOTO = (375, 500)  # height and width of most VOC images
VOC_LISTS = {"trainaug": 10_582, "train": 1_464, "val": 1_449}


@dataclass(frozen=True)
class Counted:
    """Floating-point operations of a step and of validating an image; bytes at the peak of a step."""

    step: float
    image: float
    memory: float


@dataclass(frozen=True)
class Cost:
    """Of a stage; `rate` is images per second and process of its slowest source, `workers` processes of each source."""

    stage: Stage
    counted: Counted
    rate: float
    workers: int

    @property
    def compute_hours(self) -> float:
        work = self.counted.step * self.stage.steps + self.counted.image * self.stage.validated
        return work / (PEAK * SHARE) / 3600

    @property
    def loader_hours(self) -> float:
        """Sources are read side by side, each by processes of its own."""
        return self.stage.steps * self.stage.batch_size / (self.rate * max(self.workers, 1)) / 3600

    @property
    def hours(self) -> float:
        """Reading and computing go on at the same time."""
        return max(self.compute_hours, self.loader_hours)

    @property
    def row(self) -> list[str]:
        s, c = self.stage, self.counted
        numbers = [f"{s.steps}", f"{c.step / 1e12:.2f}", f"{c.memory / 2**30:.1f}", f"{self.compute_hours:.1f}"]
        return [s.name, *numbers, f"{self.rate:.0f}", f"{self.loader_hours:.1f}"]


HEADING = ["stage", "steps", "TFLOP/step", "GiB", "h, computing", "images/s/process", "h, reading"]


# ---- counting


def without_storage(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace all parameters and buffers by fake ones, which have a shape and a type alone."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors |= {name: mode.from_tensor(value) for name, value in tensors.items() if value is not None}


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors made inside the block that are alive at once; `own` are those that were there before."""

    def __init__(self, own: Iterable[torch.Tensor]):
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


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Every pixel of a mask, strips and scores as there; nothing fake stays in what is kept from step to step."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch("losses.maskcontrast.pick", lambda _: slice(None)))
        stack.enter_context(patch.dict(upsampled.STRIP, cpu=upsampled.STRIP["cuda"]))
        stack.enter_context(patch("train_incremental.best_channel", lambda z, loss: class_scores(z, loss).max(1)))
        for module, name in ((upsampled, "interpolation"), (upsampled, "bilinear"), (ssul, "_places")):
            stack.enter_context(patch.object(module, name, getattr(module, name).__wrapped__))
        yield


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def count(recipe: Recipe, batch: dict[str, dict[str, torch.Tensor]]) -> Counted:
    """What a step of a recipe takes in bf16 autocast; `batch` is uint8, of the size that counts."""
    networks = [recipe.model, *([recipe.old] if getattr(recipe, "old", None) is not None else [])]
    trained = sum(p.numel() for group in recipe.parameter_groups() for p in group["params"])
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for network in networks:
        without_storage(network, mode)
    own = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    recipe.model.train()
    low = torch.autocast("cpu", torch.bfloat16)
    with mode, as_on_a_gpu():
        fake = {source: {k: mode.from_tensor(v) for k, v in fields.items()} for source, fields in batch.items()}
        with PeakMemory(own) as memory, FlopCounterMode(display=False) as step:
            with low:
                losses = [loss for loss in recipe.step(fake, 0).values() if loss.requires_grad]
            torch.stack(losses).sum().backward()
        image = next(t for fields in fake.values() for t in fields.values() if t.dim() == 4)[:1]
        recipe.network.requires_grad_(False)  # the counter fails on a parameter that is handed to a module
        with torch.no_grad(), eval_mode(recipe.network), low, FlopCounterMode(display=False) as forward:
            respond(recipe.network, image)
    weights = sum(4 * t.numel() for t in own) + 4 * trained  # and the momentum; gradients are among what is made
    peak = weights + sum(t.nbytes for fields in fake.values() for t in fields.values()) + memory.peak
    return Counted(step.get_total_flops(), forward.get_total_flops(), FRAGMENTS * peak + CONTEXT)


# ---- reading


def photographs(folder: Path, number: int) -> list[Sample]:
    """Drawn JPEGs of VOC's size and weight (about 90 kB), each with a label and a saliency map."""
    rng, samples = np.random.default_rng(0), []
    height, width = PHOTO
    for name in map(str, range(number)):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 12, width // 12, 3), np.uint8)).resize((width, height))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-10, 11, (height, width, 1))
        paths = {kind: folder / f"{name}_{kind}.png" for kind in ("label", "saliency", "pseudo")}
        mask = np.zeros(PHOTO, np.uint8)
        mask[90:290, 120:370] = 1
        for path in paths.values():
            write_label(path, mask)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=90)
        samples.append(Sample(name, folder / f"{name}.jpg", **paths))
    return samples


def reading_rate(reads: Iterable[Read], samples: list[Sample], repeats: int = 2) -> float:
    """Images per second that one process reads, decodes and transforms, of the slowest of these sources."""
    rates = []
    for fields, transform in reads:
        dataset = SegmentationDataset(samples, fields, transform=transform, mask_rule="any")
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            for index in range(len(dataset)):
                dataset[index]
            seconds.append(time.process_time() - start)
        rates.append(len(dataset) / min(seconds))
    return min(rates)


# ---- a configuration


def estimate(cfg, images: int = 60) -> Iterator[Cost]:
    """The cost of each training stage of a configuration; lists come from data.root, or are the published ones."""
    with tempfile.TemporaryDirectory() as folder:
        samples = photographs(Path(folder), images)
        cfg = cfg if cfg.data.root or os.environ.get("DATA_ROOT") else with_lists(cfg, Path(folder))
        torch.set_num_threads(1)
        for stage in STAGES[cfg.system](cfg):
            yield Cost(stage, count(stage.build(), stage.batch()), reading_rate(stage.reads, samples), cfg.data.workers)


def with_lists(cfg, folder: Path):
    """The configuration with a data root that holds lists of the published lengths, and nothing to read."""
    for name, length in VOC_LISTS.items():
        write_list(folder / "sets" / f"{name}.txt", [f"{name}{index}" for index in range(length)])
    if cfg.data.dataset == "coco":
        (folder / "train2014").mkdir()
    return cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": folder})})


def header(costs: list[Cost], part: str = "") -> str:
    """The line for the head of the configuration; `part` is the split or task that the numbers are of."""
    parts = [f"{cost.stage.name} {cost.counted.memory / 2**30:.0f} GiB, {_hours(cost.hours)}" for cost in costs]
    slow = [cost.stage.name for cost in costs if cost.loader_hours > cost.compute_hours]
    bound = f"; reading images ({costs[0].workers} processes) bounds {', '.join(slow)}" if slow else ""
    gpu = f"one {GPU} at {100 * SHARE:.0f} % of its peak in bf16"
    return f"Estimated, not measured, for {gpu} (benchmarks/cost.py): {part}{'; '.join(parts)}{bound}."


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 0.1 else f"{max(60 * hours, 1):.0f} min"


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, tuple(STAGES))
    costs = list(estimate(cfg))
    print(
        f"{GPU}, {PEAK / 1e12:.0f} TFLOP/s in bf16, {SHARE:.0%} of them used; {cfg.data.workers} processes per source"
    )
    print(table([HEADING, *(cost.row for cost in costs)]))
    part = getattr(cfg, "split", "") or getattr(cfg, "task", "")
    print(f"\n# {header(costs, f'{part}, ' if part else '')}")


if __name__ == "__main__":
    main(sys.argv[1:])
