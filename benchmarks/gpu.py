"""What one GPU makes of the training steps of every system: images a second, share of the bf16 peak that it reaches on
a product of matrices here, peak memory, time spent waiting for images, and how often a step waits for the device.

Float32 eager without and with TF32, then bf16, channels-last memory and torch.compile, one after the other. Each step
is that of `utils.step.train_step` at the batch size of its configuration, with random weights and images; reading is
measured on drawn JPEGs of VOC's size. Without a GPU it stops at once (exit status 2).

    python -m benchmarks.gpu --save output/gpu.json
    python -m benchmarks.gpu --only SSUL --workers 16
    python -m benchmarks.gpu --device cpu --size 64 --batch 2 --steps 1 --set model.backbone=resnet18   # to try it
"""

import argparse
import sys
from pathlib import Path


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the command itself")
    parser.add_argument("--only", default="", help="steps whose name holds this")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--workers", type=int, default=16, help="processes that read images, of each source")
    parser.add_argument("--size", type=int, help="pixels of the images instead of the papers'")
    parser.add_argument("--batch", type=int, help="images of a batch instead of the papers'")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of all configurations")
    parser.add_argument("--save", type=Path, help="write the figures to this JSON file")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


def require_gpu(device: str) -> None:
    """Ends the command with one line where no driver of a GPU is, before torch is imported."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if device != "cpu" and not any(Path(driver).exists() for driver in drivers):
        no_gpu(device, f"none of {', '.join(drivers)} is there")


def no_gpu(device: str, reason: str) -> None:
    print(f"error: --device {device}: no GPU found ({reason}); run this on a machine with one", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":  # before the imports below, which take seconds
    require_gpu(arguments().device)

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.cost import count, photographs
from benchmarks.gpu_work import WORKS, Work
from data.io import one_opencv_thread
from utils.checkpoint import write_json
from utils.config.common import Common, Training
from utils.recipe import Recipe
from utils.report.tables import table
from utils.run import Run
from utils.step import build_optimizer, train_step

WARM_UP, PROFILED = 5, 3  # steps; cuDNN tries its algorithms in the first ones
STEP = "one step"
WAITING = ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize")  # of CUDA and HIP
PHOTOS = 64
LARGEST = 5  # kernels that are listed


@dataclass(frozen=True)
class Mode:
    """How a step is computed."""

    name: str
    amp: str = "off"
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False


MODES = (
    Mode("float32"),
    Mode("TF32", tf32=True),
    Mode("bf16", "bf16", tf32=True),
    Mode("bf16, channels_last", "bf16", tf32=True, channels_last=True),
    Mode("bf16, channels_last, compiled", "bf16", tf32=True, channels_last=True, compile=True),
)
AS_TRAINED = MODES[3]  # what `amp: auto` and the other defaults make of a GPU
HEADING = ("step", "mode", "images/s", "times float32", "% of peak", "GiB", "% waiting for images", "waits a step")


@dataclass
class Found:
    """Figures of a step in a mode; None where they were not measured."""

    name: str
    mode: str
    images_per_second: float
    times_float32: float
    peak_share: float
    gib: float | None = None
    waiting: float | None = None  # share of the time, with images from disk
    waits: float | None = None  # per step
    allowed_waits: int | None = None
    largest: list[tuple[str, float]] | None = None  # kernels, and their shares of the device's time


# ---- a step in a mode


class Stepper:
    """Training steps of a work in a mode on a device; it takes the recipe that it is given."""

    def __init__(self, recipe: Recipe, cfg: Common, settings: Training, mode: Mode, device: torch.device):
        options = cfg.run.model_copy(update={"channels_last": mode.channels_last, "compile": mode.compile})
        self.run = Run(cfg.model_copy(update={"run": options, "amp": mode.amp}), "gpu", Path(), device, {})
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode.tf32
        torch.backends.cudnn.benchmark = True
        for name, value in vars(recipe).items():
            if isinstance(value, (torch.nn.Module, torch.Tensor)):
                setattr(recipe, name, self.place(value))
        self.recipe, self.settings, self.device = recipe, settings, device
        recipe.model.train()
        self.optimizer = build_optimizer(recipe.parameter_groups(), settings)

    def place(self, value: Any) -> Any:
        return self.run.place(value) if isinstance(value, torch.nn.Module) else value.to(self.run.device)

    def __call__(self, batch: dict[str, dict]) -> None:
        clip = self.settings.clip_norm
        train_step(self.recipe, batch, self.optimizer, clip_norm=clip, autocast=self.run.autocast())

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def seconds(stepper: Stepper, batch: dict, steps: int) -> float:
    """Of a step, over so many that nobody waits for in between."""
    for _ in range(min(WARM_UP, steps)):
        stepper(batch)
    stepper.wait()
    start = time.perf_counter()
    for _ in range(steps):
        stepper(batch)
    stepper.wait()
    return (time.perf_counter() - start) / steps


def waiting_share(step: Callable[[dict], None], batches: Iterator[dict], skipped: int = 2) -> float:
    """Share of the time that is spent waiting for the next batch; the first ones fill the queue."""
    waited = start = 0.0
    for number in range(sys.maxsize):
        before = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return waited / max(time.perf_counter() - start, 1e-9)
        if number == skipped:
            start = before
        waited += (time.perf_counter() - before) if number >= skipped else 0
        step(batch)
    raise AssertionError


def profiled(stepper: Stepper, batch: dict) -> tuple[float, list[tuple[str, float]]]:
    """(waits for the device in a step, the largest kernels with their shares of its time)."""
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if stepper.device.type == "cuda" else []
    with profile(activities=activities) as trace:
        for _ in range(PROFILED):
            with record_function(STEP):
                stepper(batch)
    kernels = {event.key: event.self_device_time_total for event in trace.key_averages()}
    kernels.pop(STEP, None)
    total = sum(kernels.values()) or 1
    largest = sorted(((name, time_ / total) for name, time_ in kernels.items()), key=lambda pair: -pair[1])[:LARGEST]
    return waits(trace.events()) / PROFILED, largest


def waits(events: Any) -> int:
    """Calls inside of steps that wait for the device; the profiler's own lie outside."""
    steps = [event.time_range for event in events if event.name == STEP]
    calls = [event.time_range.start for event in events if event.name.endswith(WAITING)]
    return sum(any(step.start <= call <= step.end for step in steps) for call in calls)


def peak(device: torch.device, side: int) -> float:
    """Floating-point operations a second of a product of bf16 matrices."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        found = one @ other
        found[0, 0].item()  # waits for it
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


# ---- all of them


def measure(work: Work, options: argparse.Namespace, bound: float, folder: Path) -> Iterator[Found]:
    """The work in every mode; memory, waiting and the profile as the defaults train it."""
    device = torch.device(options.device)
    cfg, stage = work.open(folder / "lists", *options.set, *sized(options))
    stage = replace(stage, batch_size=options.batch or stage.batch_size)
    operations = count(stage.build(), stage.batch()).step
    batch, first = work.batch(cfg, stage), None
    images = stage.batch_size * len(stage.fields)
    for mode in MODES:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        stepper = Stepper(work.recipe(cfg, stage), cfg, getattr(cfg, work.section), mode, device)
        took = seconds(stepper, batch, options.steps)
        first = first or took
        found = Found(work.name, mode.name, images / took, first / took, operations / took / bound)
        found.gib = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        if mode is AS_TRAINED:
            found.allowed_waits = work.waits
            found.waits, found.largest = profiled(stepper, batch)
            photos = photographs(folder, min(PHOTOS, 4 * stage.batch_size))
            batches = work.loaders(stage, photos, options.workers, 2 + options.steps)
            found.waiting = waiting_share(stepper, batches)
        yield found


def sized(options: argparse.Namespace) -> list[str]:
    return [f"data.image_size={options.size}"] if options.size else []


def shown(found: Found) -> list[str]:
    waits_ = "-" if found.waits is None else f"{found.waits:.1f} of {found.allowed_waits}"
    waiting = "-" if found.waiting is None else f"{100 * found.waiting:.1f}"
    speed = [f"{found.images_per_second:.1f}", f"{found.times_float32:.1f}", f"{100 * found.peak_share:.1f}"]
    return [found.name, found.mode, *speed, "-" if found.gib is None else f"{found.gib:.1f}", waiting, waits_]


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    require_gpu(options.device)
    if options.device != "cpu" and not torch.cuda.is_available():
        no_gpu(options.device, "torch sees none")
    one_opencv_thread()
    device = torch.device(options.device)
    bound = peak(device, 8192 if device.type == "cuda" else 256)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: list[Found] = []
    for work in (work for work in WORKS if options.only.lower() in work.name.lower()):
        with tempfile.TemporaryDirectory() as folder:
            for one in measure(work, options, bound, Path(folder)):
                found.append(one)
                print(f"{one.name}, {one.mode}: {one.images_per_second:.1f} images/s", file=sys.stderr, flush=True)
    print(f"{name}, torch {torch.__version__}: {bound / 1e12:.1f} TFLOP/s in bf16")
    print(table([HEADING, *(shown(one) for one in found)], "markdown"))
    if options.save:
        about = {"device": name, "torch": torch.__version__, "peak_tflops": bound / 1e12, "steps": options.steps}
        write_json(options.save, {**about, "rows": [asdict(one) for one in found]})
    late = [one.name for one in found if one.waits is not None and one.waits > one.allowed_waits]
    for name in late:
        print(f"FAIL: a step of {name} waits for the device more often than it needs to", file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    raise SystemExit(main())
