"""What step 2 of ZS3Net takes the published way and ours: a training sample, the graph of a label map, a step of the
generator. Both ways are compared before they are timed; the plain way is that of the published code, in few lines.

    python -m benchmarks.zeroshot --size 312
"""

import argparse

import numpy as np
import torch

from benchmarks.training_step import best_of
from data.crops import ScaleBlurCrop
from losses.zs3 import mmd
from models.zs3 import Generator
from models.zs3_graph import label_graph

WORDS = NOISE = 300
FEATURES, SAMPLES, CLASSES = 256, 128, 21


def blocks(size: int, cell: int = 24) -> np.ndarray:
    """A label map uint8 [size, size] of squares."""
    few = np.random.RandomState(0).randint(0, CLASSES, (-(-size // cell),) * 2)
    return np.kron(few, np.ones((cell, cell)))[:size, :size].astype(np.uint8)


def embedding_map(label: np.ndarray, vectors: np.ndarray) -> torch.Tensor:
    """The published sample: the word vector of every pixel, float32 [300, H, W]."""
    return torch.from_numpy(vectors[label].transpose(2, 0, 1).copy())


def sample(size: int, repeats: int) -> tuple[float, float]:
    """A training sample from a decoded photograph of 500 x 375 pixels, with the vector of every pixel, and without."""
    r = np.random.RandomState(0)
    fields = {"image": r.randint(0, 256, (375, 500, 3)).astype(np.uint8), "label": blocks(500)[:375]}
    vectors, crop = r.randn(256, WORDS).astype(np.float32), ScaleBlurCrop(size)
    cells = slice(None, None, 4)
    made = embedding_map(fields["label"], vectors)[:, cells, cells]
    assert torch.equal(
        made, torch.from_numpy(vectors)[torch.from_numpy(fields["label"][cells, cells]).long()].movedim(-1, 0)
    )

    def ours(seed: int = 0) -> dict[str, np.ndarray]:
        return crop(fields, np.random.default_rng(seed))

    return best_of(lambda: embedding_map(ours()["label"], vectors), repeats), best_of(ours, repeats)


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
