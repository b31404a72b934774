"""Training steps of every system on one GPU: images per second, share of the bf16 peak, memory, and waiting.

Modes: float32, TF32, bf16, bf16 in channels-last memory, and that compiled. A step is `utils.step.train_step` at the
batch size of the configuration, with random weights and drawn JPEGs of VOC's size. The peak is what a product of bf16
matrices reaches on this GPU; the operations of a step are counted (benchmarks/flops.py). Without a GPU the command
stops at once (exit status 2).

    python -m benchmarks.gpu --save output/gpu.json
    python -m benchmarks.gpu --only SSUL --workers 16
    python -m benchmarks.gpu --agree output/demo/fold0/eums/best.pth datasets/demo/images   # same values as the CPU?
    python -m benchmarks.gpu --device cpu --size 64 --batch 2 --steps 1 --set model.backbone=resnet18   # to try it
"""

import argparse
import sys
from pathlib import Path


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the command")
    parser.add_argument("--only", default="", help="steps whose name contains this")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--workers", type=int, default=16, help="processes per source that read images")
    parser.add_argument("--size", type=int, help="image size in pixels, instead of the configuration's")
    parser.add_argument("--batch", type=int, help="batch size, instead of the configuration's")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys for all configurations")
    parser.add_argument("--save", type=Path, help="write the figures to this JSON file")
    given = {"nargs": 2, "type": Path, "metavar": ("MODEL", "IMAGES")}
    parser.add_argument("--agree", help="compare a trained network on the device with the CPU instead", **given)
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


def require_gpu(device: str) -> None:
    """Exits with one line if there is no GPU driver, before torch is imported."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if device != "cpu" and not any(Path(driver).exists() for driver in drivers):
        no_gpu(device, f"none of {', '.join(drivers)} exists")


def no_gpu(device: str, reason: str) -> None:
    print(f"error: --device {device}: no GPU found ({reason}); run this on a machine with one", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":  # before the slow imports below
    require_gpu(arguments().device)

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.flops import count, images_of
from benchmarks.gpu_agreement import devices_agree
from benchmarks.gpu_work import WORKS, Work
from data.io import one_opencv_thread
from utils.checkpoint import write_json
from utils.config.common import Common, Training
from utils.recipe import Recipe
from utils.report.tables import table
from utils.run import Run
from utils.step import build_optimizer, train_step

WARM_UP, PROFILED = 5, 3  # steps; cuDNN benchmarks its algorithms in the first
STEP = "one step"
WAITING = ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize")  # calls of CUDA and HIP
SKIPPED = 2  # first batches, which fill the queue of the loader
LARGEST = 5  # kernels listed


@dataclass(frozen=True)
class Mode:
    """Precision, memory layout and compilation of a step."""

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
AS_TRAINED = MODES[3]  # the defaults on a GPU, `amp: auto` among them
HEADING = (
    *("step", "mode", "images/s", "times float32", "TFLOP/step", "% of peak", "GiB"),
    *("% waiting for images", "waits per step"),
)


@dataclass
class Found:
    """Figures of a step in a mode; None if not measured."""

    name: str
    mode: str
    images_per_second: float
    times_float32: float
    peak_share: float
    tflop: float  # of a step
    gib: float | None = None
    waiting: float | None = None  # share of the time, images read from disk
    waits: float | None = None  # per step
    allowed_waits: int | None = None
    largest: list[tuple[str, float]] | None = None  # kernels and their shares of the device time


# ---- a step in a mode


class Stepper:
    """Training steps of a recipe in a mode on a device; moves the recipe there."""

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
    """Mean seconds of a step; the host waits for the device only at the end."""
    for _ in range(min(WARM_UP, steps)):
        stepper(batch)
    stepper.wait()
    start = time.perf_counter()
    for _ in range(steps):
        stepper(batch)
    stepper.wait()
    return (time.perf_counter() - start) / steps


def waiting_share(step: Callable[[dict], None], batches: Iterator[dict], skipped: int = SKIPPED) -> float:
    """Share of the time spent waiting for the next batch; the first `skipped` batches do not count."""
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
    """(waits for the device per step, the largest kernels with their shares of the device time)."""
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
    """Number of calls inside steps that wait for the device; those of the profiler lie outside."""
    steps = [event.time_range for event in events if event.name == STEP]
    calls = [event.time_range.start for event in events if event.name.endswith(WAITING)]
    return sum(any(step.start <= call <= step.end for step in steps) for call in calls)


def peak(device: torch.device, side: int) -> float:
    """Floating-point operations per second of a product of bf16 matrices."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        found = one @ other
        found[0, 0].item()  # waits for the result
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


# ---- all of them


def measure(work: Work, options: argparse.Namespace, bound: float, folder: Path) -> Iterator[Found]:
    """The figures of a step in every mode; memory, waiting and the profile in the mode of the defaults."""
    device = torch.device(options.device)
    cfg = work.open(folder, *options.set, *sized(options))
    settings = work.training(cfg)
    size = options.batch or settings.batch_size
    batch = next(work.batches(cfg, folder, size, 0, 1))
    images = sum(images_of(part) for part in batch.values())
    operations = first = None
    for mode in MODES:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        stepper = Stepper(work.recipe(cfg), cfg, settings, mode, device)
        operations = operations or count(lambda step=stepper: step(batch))
        took = seconds(stepper, batch, options.steps)
        first = first or took
        found = Found(work.name, mode.name, images / took, first / took, operations / took / bound, operations / 1e12)
        found.gib = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        if mode is AS_TRAINED:
            found.allowed_waits = work.waits
            found.waits, found.largest = profiled(stepper, batch)
            read = work.batches(cfg, folder, size, options.workers, SKIPPED + options.steps)
            found.waiting = waiting_share(stepper, read)
        yield found


def sized(options: argparse.Namespace) -> list[str]:
    return [f"data.image_size={options.size}"] if options.size else []


def shown(found: Found) -> list[str]:
    waits_ = "-" if found.waits is None else f"{found.waits:.1f} of {found.allowed_waits}"
    waiting = "-" if found.waiting is None else f"{100 * found.waiting:.1f}"
    speed = [f"{found.images_per_second:.1f}", f"{found.times_float32:.1f}"]
    speed += [f"{found.tflop:.2f}", f"{100 * found.peak_share:.1f}"]
    return [found.name, found.mode, *speed, "-" if found.gib is None else f"{found.gib:.1f}", waiting, waits_]


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    require_gpu(options.device)
    if options.device != "cpu" and not torch.cuda.is_available():
        no_gpu(options.device, "torch sees none")
    one_opencv_thread()
    if options.agree:
        return int(not devices_agree(*options.agree, options.device))
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
        print(f"FAIL: a step of {name} waits for the device more often than necessary", file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    raise SystemExit(main())
