"""Prototype of a masked object: the adjoint of bilinear up-sampling against up-sampling the features.

The official NCDSS code up-samples 2048 channels of 64 x 64 cells to 512 x 512 pixels, one image at a time, which takes
4.3 GB for the features and their product with the mask. Much of its time goes into obtaining that memory, so the fairer
comparison is up-sampling a few channels at a time. All ways must return the same vectors.

    python -m benchmarks.prototypes
    python -m benchmarks.prototypes --channels 320 --cells 16 --pixels 256 --images 8
"""

import argparse
import timeit

import torch
import torch.nn.functional as F

from utils.measure.clustering import mask_prototypes

CHUNK = 16  # 16 x 512 x 512 float32 take 17 MB


def upsampled_prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """features [B, D, h, w], weight [B, H, W] -> [B, D], with every channel taken to the pixels."""
    pixels = F.interpolate(features, size=weight.shape[-2:], mode="bilinear", align_corners=False)
    return F.normalize((pixels * weight[:, None]).sum((2, 3)), dim=1, eps=1e-12)


def chunked_prototypes(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same in little memory: CHUNK channels at a time."""
    size = weight.shape[-2:]
    sums = [
        (F.interpolate(part, size=size, mode="bilinear", align_corners=False) * weight[:, None]).sum((2, 3))
        for part in features.split(CHUNK, dim=1)
    ]
    return F.normalize(torch.cat(sums, 1), dim=1, eps=1e-12)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"images": 1, "channels": 2048, "cells": 64, "pixels": 512, "repeats": 3, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    o = parser.parse_args(argv)
    torch.set_num_threads(o.threads)
    g = torch.Generator().manual_seed(0)
    features = torch.rand(o.images, o.channels, o.cells, o.cells, generator=g)  # not negative, as after a ReLU
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, o.pixels)] * 2, indexing="ij")
    weight = (x**2 + 2 * y**2 < 0.5).float().expand(o.images, -1, -1)
    ways = {
        "up-sample all channels": upsampled_prototypes,
        f"up-sample {CHUNK} at a time": chunked_prototypes,
        "adjoint on the mask": mask_prototypes,
    }
    vectors = [way(features, weight) for way in ways.values()]
    for other in vectors[:-1]:
        torch.testing.assert_close(vectors[-1], other, rtol=1e-3, atol=1e-6)

    def seconds(function) -> float:
        return min(timeit.repeat(lambda: function(features, weight), number=1, repeat=o.repeats)) / o.images

    times = {name: seconds(way) for name, way in ways.items()}
    sizes = f"{o.channels} channels of {o.cells} x {o.cells} to {o.pixels} x {o.pixels}"
    print(f"{o.images} image(s), {sizes}, {o.threads} thread(s), best of {o.repeats}")
    print(f"{'':24}{'s per image':>12}{'over adjoint':>14}")
    for name, time in times.items():
        print(f"{name:24}{time:12.5f}{time / times['adjoint on the mask']:14.1f}")


if __name__ == "__main__":
    main()
