"""What step 2 of ZS3Net takes the published way and ours: a training sample, the graph of a label map, a step of the
generator. Both ways are compared before they are timed; the plain way is that of the published code, in few lines.

    python -m benchmarks.zeroshot --size 312
"""

import argparse
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from benchmarks.training_step import best_of
from data.crops import ScaleBlurCrop
from losses.zs3 import mmd
from models.zeroshot.generators import Generator
from models.zeroshot.graph import label_graph
from utils.labels import IGNORE

WORDS = NOISE = 300
FEATURES, SAMPLES, CLASSES = 256, 128, 21
DRAWS = 20  # of a training sample
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def blocks(size: int, cell: int = 24) -> np.ndarray:
    """A label map uint8 [size, size] of squares."""
    few = np.random.RandomState(0).randint(0, CLASSES, (-(-size // cell),) * 2)
    return np.kron(few, np.ones((cell, cell)))[:size, :size].astype(np.uint8)


def embedding_map(label: np.ndarray, vectors: np.ndarray) -> torch.Tensor:
    """The word vector of every pixel, float32 [300, H, W]."""
    return torch.from_numpy(vectors[label].transpose(2, 0, 1).copy())


def published_sample(
    fields: dict[str, np.ndarray], size: int, vectors: np.ndarray, draw: Random
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image float [3, S, S], label float [S, S], vectors [300, S, S]: flip, scale, pad, crop and blur by PIL."""
    image, mask = (Image.fromarray(fields[name]) for name in ("image", "label"))
    if draw.random() < 0.5:
        image, mask = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (image, mask))
    short = draw.randint(size // 2, 2 * size)
    width, height = (int(side * short / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    mask = mask.resize((width, height), Image.Resampling.NEAREST)
    if short < size:
        border = (0, 0, max(0, size - width), max(0, size - height))
        image, mask = ImageOps.expand(image, border, 0), ImageOps.expand(mask, border, IGNORE)
    left, top = (draw.randint(0, side - size) for side in image.size)
    image, mask = (part.crop((left, top, left + size, top + size)) for part in (image, mask))
    if draw.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(draw.random()))
    values = (np.asarray(image).astype(np.float32) / 255 - MEAN) / STD
    label = np.asarray(mask).astype(np.float32)
    pixels = torch.from_numpy(values.transpose(2, 0, 1).copy())
    return pixels, torch.from_numpy(label), embedding_map(np.asarray(mask), vectors)


def samplers(size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """DRAWS samples from a decoded photograph of 500 x 375 pixels, with the vector of every pixel, and without.

    Their sizes differ, and half of them are blurred.
    """
    r = np.random.RandomState(0)
    fields = {"image": r.randint(0, 256, (375, 500, 3)).astype(np.uint8), "label": blocks(500)[:375]}
    vectors, crop = r.randn(256, WORDS).astype(np.float32), ScaleBlurCrop(size)
    cells = slice(None, None, 4)
    coarse = embedding_map(fields["label"], vectors)[:, cells, cells]
    assert torch.equal(
        coarse, torch.from_numpy(vectors)[torch.from_numpy(fields["label"][cells, cells]).long()].movedim(-1, 0)
    )

    def published() -> None:
        for seed in range(DRAWS):
            published_sample(fields, size, vectors, Random(seed))

    def ours() -> None:
        for seed in range(DRAWS):
            made = crop(fields, np.random.default_rng(seed))
            torch.from_numpy(np.ascontiguousarray(made["image"].transpose(2, 0, 1)))

    return published, ours


def sample(size: int, repeats: int) -> tuple[float, float]:
    """Mean seconds of a sample, both ways."""
    published, ours = (best_of(way, repeats) / DRAWS for way in samplers(size))
    return published, ours


def plain_graph(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(component, adjacency), grown and joined cell by cell."""
    height, width = label.shape
    component, count = -np.ones(label.shape, int), 0

    def around(i: int, j: int) -> list[tuple[int, int]]:
        return [
            (x, y) for x in range(max(0, i - 1), min(height, i + 2)) for y in range(max(0, j - 1), min(width, j + 2))
        ]

    for start in np.ndindex(height, width):
        if component[start] < 0:
            component[start], stack = count, [start]
            while stack:
                for cell in around(*stack.pop()):
                    if component[cell] < 0 and label[cell] == label[start]:
                        component[cell] = count
                        stack.append(cell)
            count += 1
    adjacency = np.zeros((count, count), np.float32)
    for cell in np.ndindex(height, width):
        for other in around(*cell):
            if component[other] != component[cell]:
                adjacency[component[cell], component[other]] = 1
    return component, adjacency


def graph(size: int, repeats: int) -> tuple[float, float]:
    """The graph of a label map at stride 4."""
    label = blocks(size)[::4, ::4].copy()
    component, adjacency = plain_graph(label)
    found = label_graph(label)
    assert np.array_equal(found.component, component)
    assert np.array_equal(found.adjacency().to_dense().numpy(), adjacency)
    return best_of(lambda: plain_graph(label), repeats), best_of(lambda: label_graph(label).adjacency(), repeats)


def generator(size: int, repeats: int) -> tuple[float, float]:
    """A step of the generator for a class that fills the map: features of every cell, and of those compared alone."""
    torch.manual_seed(0)
    cells = (size // 4) ** 2
    model = Generator(WORDS, NOISE, FEATURES).eval()
    word, noise = torch.randn(1, WORDS), torch.rand(cells, NOISE)
    chosen, real = torch.randint(cells, (SAMPLES,)), torch.rand(SAMPLES, FEATURES)

    def plain() -> torch.Tensor:
        inputs = torch.cat([word.expand(cells, -1), noise], 1)
        return mmd(model.model(inputs)[chosen], real)

    def ours() -> torch.Tensor:
        return mmd(model(word, noise[chosen]), real)

    assert torch.allclose(plain(), ours(), atol=1e-5)
    return best_of(lambda: plain().backward(), repeats), best_of(lambda: ours().backward(), repeats)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=312, help="side of the crop, pixels")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name, measure in (("training sample", sample), ("graph of a label map", graph), ("generator step", generator)):
        published, ours = measure(options.size, options.repeats)
        faster = published / ours
        print(f"{name:22} published way {1000 * published:7.1f} ms, ours {1000 * ours:6.1f} ms, {faster:5.1f} times")


if __name__ == "__main__":
    main()
