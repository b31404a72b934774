"""Parts of training steps, forward and backward: the usual way, and models/."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.rows.row import Row, close, gradient
from losses.cross_entropy import cross_entropy
from losses.ssul import binary_cross_entropy, binary_cross_entropy_plain, pseudo_label
from losses.zs3 import mmd
from models.incremental.network import IncrementalNet, build_incremental
from models.incremental.scores import best_channel
from models.segmentation import build_network
from models.trunks.efficientnet_lite import join_phases, split_phases
from models.weakshot.simnet import SimNet
from models.zeroshot.generators import Generator
from models.zeroshot.graph import label_graph
from utils.config import discovery, incremental
from utils.labels import IGNORE

HEADS = [1, 1, 15, 1, 1, 1]  # SSUL: unknown, background, and four steps of VOC 15-1
WORDS, FEATURES, SAMPLES = 300, 256, 128  # ZS3Net: word vector, features, compared cells of a class
Step = tuple[Callable[[], Any], Callable[[], Any]]


def rows(quick: bool) -> Iterator[Row]:
    size, batch = (32, 2) if quick else (128, 4)
    yield Row("EUMS step: three sources in one pass", *_sources(size, batch))
    yield Row("EUMS step: cross-entropy", *_cross_entropy(size, batch))
    yield Row("EUMS step: dilated depthwise convolutions", *_dilation(size, batch))
    yield _shared_trunk(*(("resnet18", 65) if quick else ("resnet50", 257)))
    yield _similarity(5 if quick else 100)
    side = (64 if quick else 312) // 4
    yield _graph(side)
    yield _generator(side**2)


# ---- EUMS


def _sources(size: int, batch: int) -> Step:
    """Three sources: a pass for each, and `forward_sources`, which shares the frozen part of the backbone."""
    sizes = {"output_stride": 16, "atrous_rates": (1, 2, 3), "head_channels": 64, "trained": ("blocks.15",)}
    model = build_network(discovery.Model(backbone="efficientnet_lite0", init="random", **sizes), 26)
    model.to(memory_format=torch.channels_last)
    images = [torch.randn(batch, 3, size, size) for _ in range(3)]

    def theirs() -> None:
        sum(model(image).logits.square().mean() for image in images).backward()

    def ours() -> None:
        sum(output.logits.square().mean() for output in model.forward_sources(images)).backward()

    return theirs, ours


def _cross_entropy(size: int, batch: int) -> Step:
    """Up-sampling and cross-entropy of 26 classes: contiguous, and channels-last."""
    logits = torch.randn(batch, 26, size // 16, size // 16, requires_grad=True)
    label = torch.randint(0, 26, (batch, size, size))

    def run(memory: torch.memory_format, function: Callable) -> None:
        full = F.interpolate(logits.contiguous(memory_format=memory), size=(size, size), mode="bilinear")
        function(full, label).backward()

    theirs = partial(run, torch.contiguous_format, partial(F.cross_entropy, ignore_index=IGNORE))
    return theirs, partial(run, torch.channels_last, cross_entropy)


def _dilation(size: int, batch: int) -> Step:
    """Three 5x5 depthwise convolutions of dilation 2 on 672 channels: as they are, and without dilation on phases."""
    x = torch.randn(batch, 672, size // 8, size // 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(672, 1, 5, 5, requires_grad=True)

    def convolve(y: torch.Tensor, rate: int) -> torch.Tensor:
        for _ in range(3):
            y = F.conv2d(y, weight, padding=2 * rate, dilation=rate, groups=672)
        return y

    def theirs() -> None:
        convolve(x, 2).mean().backward()

    def ours() -> None:
        join_phases(convolve(split_phases(x), 1)).mean().backward()

    return theirs, ours


# ---- SSUL


def _shared_trunk(backbone: str, size: int) -> Row:
    """A later step: previous and new network as two, and as one frozen trunk with both sets of heads."""
    old, new = _networks(backbone)
    image, label = torch.randn(2, 3, size, size), torch.randint(0, 2, (2, size, size))
    heads = new.classifier.head
    trained = [heads[0], heads[1], heads[-1]]

    def theirs() -> torch.Tensor:
        with torch.no_grad():
            target = pseudo_label(label, *old(image).logits.sigmoid().max(1), 0.7, 1)
        new.zero_grad()
        binary_cross_entropy_plain(new.cell_logits(image), target).backward()
        return _gradients(new)

    def ours() -> torch.Tensor:
        with torch.no_grad():
            parts = new.decoder.parts(new.levels(image))
            cells = new.classifier(new.decoder.join(parts), [*old.classifier.head[:2], *heads[2:-1]])
            scores = new.upsample(cells, image.shape[-2:])
            target = pseudo_label(label, *best_channel(scores, "bce"), 0.7, 1)
        new.zero_grad()
        logits = new.classifier(new.decoder.join(new.decoder.drop(parts)), trained)
        binary_cross_entropy(logits, target, [0, 1, sum(HEADS)]).backward()
        return _gradients(new)

    def same() -> None:
        expected, found = theirs(), ours()
        assert (found - expected).norm() < 1e-4 * expected.norm()

    return Row("SSUL step on a shared trunk", theirs, ours, same=same)


def _networks(backbone: str) -> tuple[IncrementalNet, IncrementalNet]:
    """(previous network, new network with one more head, of which three heads train)."""
    old = build_incremental(incremental.Model(backbone=backbone, init="random", dropout=0.0), HEADS, linear=False)
    old.eval().requires_grad_(False)
    new = copy.deepcopy(old)
    new.classifier.add(1)
    new.requires_grad_(False)
    new.freeze_batchnorm()
    for head in (new.classifier.head[0], new.classifier.head[1], new.classifier.head[-1]):
        head[0].requires_grad_(True)
        head[3].requires_grad_(True)
    return old, new.train()


def _gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# ---- SimFormer


def _similarity(points: int) -> Row:
    """SimNet on all pairs of points of two images: concatenated features of every pair, and `SimNet.pairs`."""
    model, features = SimNet(), torch.randn(1, 2, points, 256)

    def plain() -> torch.Tensor:
        sides = features[..., :, None, :], features.flip(1)[..., None, :, :]
        x = torch.cat([side.expand(1, 2, points, points, 256) for side in sides], -1).flatten(0, -2)
        for block in model.blocks:
            x = block(x)
        different, same = model.out_head(x).unbind(1)
        return (same - different).view(1, 2, points, points)

    def learn(way: Callable[[], torch.Tensor]) -> None:
        model.zero_grad()
        way().square().mean().backward()

    def same() -> None:
        with torch.no_grad():
            torch.testing.assert_close(plain(), ours(), atol=1e-4, rtol=1e-4)

    ours = partial(model.pairs, features)
    return Row("SimFormer: SimNet on pairs of points", partial(learn, plain), partial(learn, ours), 2, same)


# ---- ZS3Net


def _graph(side: int) -> Row:
    """Graph of a label map of side x side cells: grown cell by cell, and by `label_graph`."""
    few = np.random.RandomState(0).randint(0, 21, (-(-side // 6),) * 2)
    label = np.kron(few, np.ones((6, 6)))[:side, :side].astype(np.uint8)

    def same() -> None:
        component, adjacency = graph_by_cells(label)
        found = label_graph(label)
        assert np.array_equal(found.component, component)
        assert np.array_equal(found.adjacency().to_dense().numpy(), adjacency)

    theirs, ours = partial(graph_by_cells, label), lambda: label_graph(label).adjacency()
    return Row("ZS3Net graph of a label map", theirs, ours, same=same)


def graph_by_cells(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(component of each cell, adjacency of components), 8-connected."""
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


def _generator(cells: int) -> Row:
    """A step of the generator for a class: features of all its cells, and of the compared cells only."""
    model = Generator(WORDS, WORDS, FEATURES).eval()
    word, noise = torch.randn(1, WORDS), torch.rand(cells, WORDS)
    chosen, real = torch.randint(cells, (SAMPLES,)), torch.rand(SAMPLES, FEATURES)

    def theirs(word: torch.Tensor) -> torch.Tensor:
        return mmd(model.model(torch.cat([word.expand(cells, -1), noise], 1))[chosen], real)

    def ours(word: torch.Tensor) -> torch.Tensor:
        return mmd(model(word, noise[chosen]), real)

    return close(f"ZS3Net generator step, {cells} cells", *(partial(gradient, way, word) for way in (theirs, ours)))
