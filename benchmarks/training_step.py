"""What the training step saves: one backbone pass over all sources, cross-entropy over classes that lie together in
memory, and dilated depthwise convolutions computed on phases, each against the plain way.

    python -m benchmarks.training_step --size 128 --batch 8 --repeat 5
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from losses.cross_entropy import cross_entropy
from models.deeplab import DeepLabV3
from models.trunks import build_backbone
from models.trunks.efficientnet_lite import join_phases, split_phases


def best_of(step: Callable[[], None], repeat: int) -> float:
    """Least seconds of `repeat` calls, after one to warm up."""
    step()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def sources(size: int, batch: int) -> tuple[Callable, Callable]:
    """Forward and backward of three sources: three calls, and forward_sources."""
    model = DeepLabV3(build_backbone("efficientnet_lite0", 16, "random"), 26, (1, 2, 3), 64, trained=("blocks.15",))
    model.to(memory_format=torch.channels_last)
    images = [torch.randn(batch, 3, size, size) for _ in range(3)]

    def plain() -> None:
        sum(model(image).logits.square().mean() for image in images).backward()

    def ours() -> None:
        sum(output.logits.square().mean() for output in model.forward_sources(images)).backward()

    return plain, ours


def loss(size: int, batch: int) -> tuple[Callable, Callable]:
    """Up-sampling and cross-entropy of 26 classes."""
    logits = torch.randn(batch, 26, size // 16, size // 16, requires_grad=True)
    label = torch.randint(0, 26, (batch, size, size))

    def run(memory: torch.memory_format, function: Callable) -> None:
        full = F.interpolate(logits.contiguous(memory_format=memory), size=(size, size), mode="bilinear")
        function(full, label).backward()

    plain = partial(run, torch.contiguous_format, partial(F.cross_entropy, ignore_index=255))
    return plain, partial(run, torch.channels_last, cross_entropy)


def dilation(size: int, batch: int) -> tuple[Callable, Callable]:
    """Forward and backward of three 5x5 depthwise convolutions of dilation 2 on 672 channels."""
    x = torch.randn(batch, 672, size // 8, size // 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(672, 1, 5, 5, requires_grad=True)

    def convolve(y: torch.Tensor, rate: int) -> torch.Tensor:
        for _ in range(3):
            y = F.conv2d(y, weight, padding=2 * rate, dilation=rate, groups=672)
        return y

    def plain() -> None:
        convolve(x, 2).mean().backward()

    def ours() -> None:
        join_phases(convolve(split_phases(x), 1)).mean().backward()

    return plain, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.size} px, batch {options.batch}, {options.threads} threads")
    print(f"{'part':12}{'plain':>10}{'ours':>10}{'ratio':>8}")
    for part in (sources, loss, dilation):
        plain, ours = (best_of(step, options.repeat) for step in part(options.size, options.batch))
        print(f"{part.__name__:12}{1e3 * plain:7.0f} ms{1e3 * ours:7.0f} ms{plain / ours:7.1f}x")


if __name__ == "__main__":
    main()
