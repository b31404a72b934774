"""What `python -m benchmarks` measures: the released programs' way and ours, on the same inputs, of paper size.

A row of a loss, a decision or the evaluation checks first that both give the same. Parts of training steps are compared
in the tests, and samples, whose draws are not those of the released programs, with reference vectors in tests/data.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import (
    baselines,
    contrast_loss,
    evaluation,
    incremental_step,
    prototypes,
    training_step,
    weakshot,
    zeroshot,
)
from benchmarks.cost import PeakMemory, photographs
from cluster_pseudolabel import MAPS, base_removal
from data.contrast.builder import TwoViews
from data.crops import ScaleCrop
from data.dataset import Draw, SegmentationDataset
from data.layouts import Sample
from data.transforms import TrainTransform, WeakStrongTransform
from losses.cross_entropy import cross_entropy
from losses.eums import image_entropy
from losses.ssul import binary_cross_entropy
from losses.zs3 import weighted_cross_entropy
from models.incremental.network import predicted_ids, upsample
from utils.labels import IGNORE
from utils.measure.clustering import mask_prototypes
from utils.measure.confusion import image_confusion
from utils.measure.metrics import confusion_matrix

CROP, SQUARE, VIEW, STRIDE = 513, 512, 224, 16  # pixels: SSUL, NCDSS, MaskContrast
THRESHOLD = 0.9  # of a certain base class
REPEATS = 3  # of what no way of making a sample can do without


def cpu_seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@dataclass(frozen=True)
class Row:
    """Two functions without arguments that do the same work `count` times; `note` says what differs, if anything."""

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    count: int = 1
    same: Callable[[], None] | None = None
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """MiB of tensors that a function makes and holds at once, the released programs' way and ours."""

    name: str
    theirs: float
    ours: float


def rows(folder: Path, quick: bool = False) -> Iterator[Row]:
    """All rows; `quick` with inputs that take no time, for the test. Files of samples go to the folder."""
    torch.manual_seed(0)
    samples = photographs(folder, 2 if quick else 8)
    yield from _incremental(quick)
    yield from _discovery(quick)
    yield from _evaluation(quick)
    yield from _samples(samples)
    yield from _training(quick)


# ---- losses and decisions


def cells(classes: int, images: int, size: int, stride: int = STRIDE) -> torch.Tensor:
    """Logits [B, C, h, w] of feature cells."""
    side = -(-size // stride)
    return torch.randn(images, classes, side, side) * 2 - 1


def blocks(classes: int, images: int, size: int) -> torch.Tensor:
    """Labels int64 [B, H, W] of squares, a twentieth of them ignored."""
    few = torch.randint(0, classes, (images, -(-size // 32), -(-size // 32)))
    few[torch.rand(few.shape) < 0.05] = 255
    return few.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, :size, :size].contiguous()


def _incremental(quick: bool) -> Iterator[Row]:
    size, images = (65, 1) if quick else (CROP, 2)
    for classes in (22, 152):
        few, label = cells(classes, images, size), blocks(classes, images, size)
        theirs = partial(contrast_loss.gradient, baselines.binary_cross_entropy, few, label)
        ours = partial(contrast_loss.gradient, binary_cross_entropy, few, label)
        same = partial(_close, theirs, ours, 1e-8)
        yield Row(f"SSUL loss, forward and backward, {classes} channels", theirs, ours, images, same)
    theirs = partial(baselines.incremental_prediction, few, (size, size))
    ours = partial(_predicted, few, size)
    yield Row("SSUL prediction, 152 channels", theirs, ours, images, partial(_agree, theirs, ours))


def _predicted(few: torch.Tensor, size: int) -> torch.Tensor:
    return predicted_ids(upsample(few, (size, size)), unknown=True, loss="bce")


def _discovery(quick: bool) -> Iterator[Row]:
    size, images = (64, 1) if quick else (SQUARE, 2)
    for classes in (16, 61):
        few, saliency = cells(classes, images, size, 8), (blocks(2, images, size) == 1).byte()
        theirs = partial(baselines.base_removal, few, saliency, THRESHOLD)
        ours = partial(_removed, few, saliency)
        yield Row(f"base-removal maps, C = {classes}", theirs, ours, images, partial(_agree, theirs, ours))
    for classes in (26, 101):
        few, mask = cells(classes, images, size, 8), torch.zeros(images, size, size, dtype=torch.bool)
        mask[:, size // 4 : 3 * size // 4, size // 3 : 3 * size // 4] = True
        theirs, ours = partial(baselines.image_entropy, few, mask), partial(image_entropy, few, mask)
        yield Row(f"entropy of an image, C = {classes}", theirs, ours, images, partial(_close, theirs, ours, 1e-6))


def _removed(few: torch.Tensor, saliency: torch.Tensor) -> list[torch.Tensor]:
    maps = base_removal(upsample(few, saliency.shape[-2:]), saliency, THRESHOLD)
    return [maps[name] for name in MAPS]


# ---- evaluation


def _evaluation(quick: bool) -> Iterator[Row]:
    images, size = (2, 64) if quick else (20, SQUARE)
    known, clusters, novel = 16, 10, 5
    batches = evaluation.random_batches(images, 4, size, known + clusters, known + novel)
    matrix = evaluation.joint_histogram(batches, known + clusters, known + novel)
    match, found = evaluation.scores_from(matrix, known)
    theirs = partial(evaluation.iou_by_masks, batches, match, known, known + novel)
    count = partial(evaluation.joint_histogram, batches, known + clusters, known + novel)

    def scores(place: int) -> torch.Tensor:
        return evaluation.scores_from(count(), known)[place]

    same = partial(_close, theirs, partial(scores, 1), 1e-9)
    yield Row("IoU of 21 classes, class by class", theirs, partial(scores, 1), images, same)
    theirs = partial(evaluation.match_by_masks, batches, known, clusters, novel)
    yield Row(
        "matching of 10 clusters", theirs, partial(scores, 0), images, partial(_agree, theirs, partial(scores, 0))
    )
    maps = [(p.byte(), t) for pred, label in batches for p, t in zip(pred, label, strict=True)]
    classes = known + clusters

    def by_numpy() -> Any:
        return torch.from_numpy(sum(baselines.joint_histogram(p.numpy(), t.numpy(), classes) for p, t in maps))

    def by_us() -> Any:
        return sum(confusion_matrix(p, t, classes, classes) for p, t in maps)

    yield Row("confusion matrix, against np.bincount", by_numpy, by_us, images, partial(_agree, by_numpy, by_us))
    yield _native([(p.numpy(), np.ascontiguousarray(t.numpy()[: size * 3 // 4])) for p, t in maps], classes)


def _native(maps: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Row:
    def theirs() -> torch.Tensor:
        return torch.from_numpy(sum(baselines.native_counts(p, t, classes) for p, t in maps))

    def ours() -> torch.Tensor:
        matrix = sum(image_confusion(t, p[None], classes, classes)[0] for p, t in maps)
        hit = matrix.diagonal()
        return torch.stack([hit, matrix.sum(0) - hit, matrix.sum(1) - hit])

    return Row("scoring at the size of the file, per image", theirs, ours, len(maps), partial(_agree, theirs, ours))


# ---- samples


def _samples(samples: list[Sample]) -> Iterator[Row]:
    def each(make: Callable[[Sample, Random], Any]) -> Callable[[], list[Any]]:
        return lambda: [make(sample, Random(place)) for place, sample in enumerate(samples)]

    def read(transform: Any, *fields: str) -> Callable[[], list[dict]]:
        dataset = SegmentationDataset(samples, ("image", *fields), transform=transform, mask_rule="any")
        return lambda: [dataset[Draw(place)] for place in range(len(samples))]

    def both(name: str, theirs: Any, floor: Any, make: Callable[..., Any], *fields: str) -> Iterator[Row]:
        official, fast = (read(make(transforms=way), *fields) for way in ("official", "fast"))
        least = min(cpu_seconds(each(floor)) for _ in range(REPEATS)) / len(samples)
        note = f"what decides the values takes {1e3 * least:.1f} ms"
        yield Row(f"{name}, official", each(theirs), official, len(samples), note=note)
        note = f"data.transforms=fast: {_grey_levels(official(), fast()):.1f} grey levels apart"
        yield Row(f"{name}, fast", each(theirs), fast, len(samples), note=note)

    def ncdss(sample: Sample, draw: Random, strong: bool) -> Any:
        return baselines.ncdss_sample(sample, SQUARE, draw, strong)

    def ncdss_floor(sample: Sample, _draw: Random, hues: int) -> None:
        baselines.ncdss_floor(sample, SQUARE, hues)

    yield from both(
        "SSUL sample",
        lambda sample, draw: baselines.ssul_sample(sample, CROP, draw),
        baselines.ssul_floor,
        partial(ScaleCrop, CROP),
        *("label", "saliency"),
    )
    ways = partial(ncdss, strong=False), partial(ncdss_floor, hues=0)
    yield from both("NCDSS sample", *ways, partial(TrainTransform, SQUARE), "label")
    ways = partial(ncdss, strong=True), partial(ncdss_floor, hues=1)
    yield from both("EUMS weak and strong view", *ways, partial(WeakStrongTransform, SQUARE))
    yield from both(
        "MaskContrast pair",
        lambda sample, _draw: baselines.contrast_pair(sample, VIEW),
        lambda sample, _draw: baselines.contrast_floor(sample, VIEW),
        partial(TwoViews, VIEW),
        "saliency",
    )


def _grey_levels(one: list[dict], other: list[dict]) -> float:
    """Mean difference of the images of samples of equal draws."""
    pairs = [
        (a[key], b[key])
        for a, b in zip(one, other, strict=True)
        for key in a
        if torch.is_tensor(a[key]) and a[key].dim() == 3
    ]
    return torch.cat([(a.float() - b.float()).abs().flatten() for a, b in pairs]).mean().item()


# ---- training, and what is made once


def _training(quick: bool) -> Iterator[Row]:
    size, batch = (32, 2) if quick else (128, 4)
    for name, part in (("three sources in one pass", training_step.sources), ("cross-entropy", training_step.loss)):
        yield Row(f"EUMS step: {name}", *part(size, batch))
    yield Row("EUMS step: dilated depthwise convolutions", *training_step.dilation(size, batch))
    side = 65 if quick else 257
    networks = incremental_step.networks("resnet18" if quick else "resnet50")
    step = (*networks, torch.randn(2, 3, side, side), torch.randint(0, 2, (2, side, side)))
    ways = incremental_step.plain, incremental_step.shared
    yield Row("SSUL step on a shared trunk", *(partial(way, *step) for way in ways))
    features, weight = torch.rand(1, 64 if quick else 2048, 64, 64), (torch.rand(1, SQUARE, SQUARE) < 0.3).float()
    ways = (prototypes.chunked_prototypes, mask_prototypes)
    theirs, ours = (partial(way, features, weight) for way in ways)
    yield Row("prototype of an object", theirs, ours, same=partial(_close, theirs, ours, 1e-4))
    embedding = torch.randn(4, 32, VIEW, VIEW).contiguous(memory_format=torch.channels_last)
    mask = torch.zeros(4, VIEW, VIEW, dtype=torch.bool)
    mask[:, 50:160, 40:180] = True
    prototype, bank = F.normalize(torch.randn(4, 32), dim=1), F.normalize(torch.randn(32, 128), dim=0)
    ways = contrast_loss.plain, contrast_loss.ours
    theirs, ours = (partial(contrast_loss.gradient, way, embedding, mask, prototype, bank) for way in ways)
    yield Row("MaskContrast loss, forward and backward", theirs, ours, 4, partial(_close, theirs, ours, 1e-6))
    note = "ours leaves word vectors to the device"
    yield from _weak_shot(quick)
    yield Row("ZS3Net sample", *zeroshot.samplers(64 if quick else 312), zeroshot.DRAWS, note=note)


def _weak_shot(quick: bool) -> Iterator[Row]:
    """A training step of MaskFormer behind its network, SimNet on pairs of points, and an image of a test."""
    size, classes, points = (64, 9, 5) if quick else (640, 171, 100)
    learn = weakshot.criterion(size, classes)["losses and gradients"]
    yield Row("MaskFormer losses, forward and backward", learn.plain, learn.ours, weakshot.IMAGES, learn.same)
    pairs, pixels = weakshot.similarity(points), weakshot.inference(size, classes)
    yield Row("SimFormer: SimNet on pairs of points", pairs.plain, pairs.ours, weakshot.IMAGES, pairs.same)
    yield Row("MaskFormer: classes of pixels", pixels.plain, pixels.ours, same=pixels.same)


# ---- memory


def memory(quick: bool = False) -> Iterator[Memory]:
    """What losses and their gradients take beyond what the network gives, for one image, at the sizes of the papers."""
    large, square, small, view = (65,) * 4 if quick else (CROP, SQUARE, 312, VIEW)
    for name, classes, size, stride, *ways in (
        ("SSUL, VOC: 22 channels", 22, large, STRIDE, baselines.binary_cross_entropy, binary_cross_entropy),
        ("SSUL, ADE20K: 152 channels", 152, large, STRIDE, baselines.binary_cross_entropy, binary_cross_entropy),
        ("NCDSS, PASCAL-5i: 26 channels", 26, square, 8, _plain_cross_entropy, _our_cross_entropy),
        ("NCDSS, COCO-20i: 101 channels", 101, square, 8, _plain_cross_entropy, _our_cross_entropy),
        ("ZS3Net, Pascal-Context: 60 channels", 60, small, 4, _plain_cross_entropy, _our_weighted_cross_entropy),
    ):
        few, label = cells(classes, 1, size, stride), blocks(classes, 1, size)
        yield Memory(f"{name} of {size} pixels", *(_peak(partial(way, label=label), few) for way in ways))
    embedding = torch.randn(1, 32, view, view).contiguous(memory_format=torch.channels_last)
    mask = torch.zeros(1, view, view, dtype=torch.bool)
    mask[:, view // 4 : view * 3 // 4, view // 5 : view * 4 // 5] = True
    known = F.normalize(torch.randn(1, 32), dim=1), F.normalize(torch.randn(32, 128), dim=0)
    ways = contrast_loss.plain, contrast_loss.ours
    peaks = (_peak(lambda leaf, way=way: way(leaf, mask, *known), embedding) for way in ways)
    yield Memory(f"MaskContrast, a bank of 128, {view} pixels", *peaks)
    size, classes = (64, 9) if quick else (640, 171)
    learn = weakshot.criterion(size, classes)["losses and gradients"]
    plain, ours = (_peak_of(way) / weakshot.IMAGES for way in (learn.plain, learn.ours))
    yield Memory(f"MaskFormer, {classes} classes, {size} pixels", plain, ours)


def _plain_cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    large = F.interpolate(few, size=label.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(large, label, ignore_index=IGNORE)


def _our_cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return cross_entropy(upsample(few, label.shape[-2:]), label)


def _our_weighted_cross_entropy(few: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return weighted_cross_entropy(upsample(few, label.shape[-2:]), label)


def _peak(loss: Callable[[torch.Tensor], torch.Tensor], few: torch.Tensor) -> float:
    leaf = few.clone().requires_grad_()
    return _peak_of(lambda: loss(leaf).backward(), leaf)


def _peak_of(work: Callable[[], Any], *own: torch.Tensor) -> float:
    """MiB of the tensors that are made and alive at once."""
    with PeakMemory(own) as found:
        work()
    return found.peak / 2**20


# ---- do both give the same?


def _close(theirs: Callable[[], torch.Tensor], ours: Callable[[], torch.Tensor], atol: float) -> None:
    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=atol, check_dtype=False)


def _agree(theirs: Callable[[], Any], ours: Callable[[], Any]) -> None:
    """Classes of all but a few pixels: two ways of rounding may decide a tie differently."""
    one, other = theirs(), ours()
    for a, b in zip(*((x if isinstance(x, list) else [x]) for x in (one, other)), strict=True):
        assert a.shape == b.shape and (a != b).float().mean() < 1e-5
