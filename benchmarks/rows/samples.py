"""From files to training samples: the way of the released programs, and data/.

Their samples end as the tensors that a network reads, float32 and normalised; ours stay uint8 and are normalised on the
device. The draws of both ways differ; tests/data compare ours with reference vectors of the released programs.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from benchmarks.rows.row import CROP, SQUARE, VIEW, Row, cpu_seconds, photographs
from data.contrast.builder import TwoViews
from data.crops import ScaleBlurCrop, ScaleCrop
from data.dataset import Draw, SegmentationDataset
from data.layouts import Sample
from data.transforms import TrainTransform, WeakStrongTransform
from data.weakshot.crops import WeakCrop, brightness, classes_in, contrast, hue, saturation, shortest_edge
from data.weakshot.pairs import ALONE, COMMON, Partners
from models.weights import read_weights
from utils.labels import IGNORE
from utils.torch_file import save_torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = T.ColorJitter(0.5, 0.5, 0.5, 0.25)
RECOLOR = T.Compose([T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), T.RandomGrayscale(0.2)])
REPEATS = 3  # of the part of a sample that decides its values
DRAWS = 20  # samples of one photograph; their sizes differ
WORDS = 300  # dimensions of a word vector
STUFF, SIZES, LONGEST = 171, range(320, 961, 64), 2560  # COCO-Stuff-10K: classes, shorter sides, longest side


def rows(folder: Path, quick: bool) -> Iterator[Row]:
    yield from _files(photographs(folder, 2 if quick else 8))
    yield _zero_shot(64 if quick else 312)
    yield from _weak_shot(*((60, 64) if quick else (8993, 640)))
    yield _checkpoint(folder / "weights.pth", 4 if quick else 128)


# ---- from files: SSUL, NCDSS, MaskContrast


def _files(samples: list[Sample]) -> Iterator[Row]:
    """Two rows of each sample: exact (data.transforms=official), and with other routines (fast)."""

    def each(make: Callable[[Sample, Random], Any]) -> Callable[[], list[Any]]:
        return lambda: [make(sample, Random(place)) for place, sample in enumerate(samples)]

    def read(transform: Any, *fields: str) -> Callable[[], list[dict]]:
        dataset = SegmentationDataset(samples, ("image", *fields), transform=transform, mask_rule="any")
        return lambda: [dataset[Draw(place)] for place in range(len(samples))]

    for name, theirs, floor, make, *fields in (
        ("SSUL sample", ssul_sample, ssul_floor, partial(ScaleCrop, CROP), "label", "saliency"),
        ("NCDSS sample", ncdss_sample, ncdss_floor, partial(TrainTransform, SQUARE), "label"),
        (
            "EUMS weak and strong view",
            partial(ncdss_sample, strong=True),
            partial(ncdss_floor, hues=1),
            partial(WeakStrongTransform, SQUARE),
        ),
        ("MaskContrast pair", contrast_pair, contrast_floor, partial(TwoViews, VIEW), "saliency"),
    ):
        official, fast = (read(make(transforms=way), *fields) for way in ("official", "fast"))
        least = min(cpu_seconds(each(floor)) for _ in range(REPEATS)) / len(samples)
        note = f"what decides the values takes {1e3 * least:.1f} ms"
        yield Row(f"{name}, official", each(theirs), official, len(samples), note=note)
        note = f"data.transforms=fast: {_grey_levels(official(), fast()):.1f} grey levels apart"
        yield Row(f"{name}, fast", each(theirs), fast, len(samples), note=note)


def _grey_levels(one: list[dict], other: list[dict]) -> float:
    """Mean difference of the images of samples with equal draws."""
    pairs = [
        (a[key], b[key])
        for a, b in zip(one, other, strict=True)
        for key in a
        if torch.is_tensor(a[key]) and a[key].dim() == 3
    ]
    return torch.cat([(a.float() - b.float()).abs().flatten() for a, b in pairs]).mean().item()


def _normalised(image: np.ndarray | Image.Image) -> torch.Tensor:
    return TF.normalize(TF.to_tensor(image), MEAN, STD)


def _labels(values: np.ndarray | Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.int64))


def ssul_sample(sample: Sample, draw: Random) -> tuple[torch.Tensor, ...]:
    """Scaled by 0.5 to 2, padded, cropped and flipped by PIL: image, label and saliency."""
    image = Image.open(sample.image).convert("RGB")
    maps = [Image.open(path) for path in (sample.label, sample.saliency)]
    scale = draw.uniform(0.5, 2)
    width, height = (int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    maps = [values.resize((width, height), Image.Resampling.NEAREST) for values in maps]
    for axis in (0, 1):  # all four sides grow for the width, then again for the height
        if image.size[axis] < CROP:
            border = (1 + CROP - image.size[axis]) // 2
            image, *maps = (ImageOps.expand(part, border) for part in (image, *maps))
    left, top = (draw.randint(0, side - CROP) for side in image.size)
    parts = [part.crop((left, top, left + CROP, top + CROP)) for part in (image, *maps)]
    if draw.random() < 0.5:
        parts = [part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in parts]
    return _normalised(parts[0]), *(_labels(values) for values in parts[1:])


def ncdss_sample(sample: Sample, draw: Random, strong: bool = False) -> tuple[torch.Tensor, ...]:
    """Flipped, turned, scaled and resized by OpenCV: image and label, or for EUMS the view with jittered colours."""
    image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
    label = np.array(Image.open(sample.label))
    if draw.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), draw.uniform(-5, 5), draw.uniform(0.75, 1.25))
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
    image = cv2.resize(image, (SQUARE, SQUARE), interpolation=cv2.INTER_CUBIC)
    if strong:
        return _normalised(image), _normalised(STRONG(Image.fromarray(image)))
    label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return _normalised(image), _labels(cv2.resize(label, (SQUARE, SQUARE), interpolation=cv2.INTER_NEAREST))


def contrast_pair(sample: Sample, _draw: Random) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two views of MaskContrast with their masks: a crop resized, flipped, with jittered colours."""
    image, mask = Image.open(sample.image).convert("RGB"), Image.open(sample.saliency)
    views = []
    for _ in range(2):
        box = T.RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3))
        part = TF.resized_crop(image, *box, [VIEW, VIEW], T.InterpolationMode.BILINEAR)
        inside = TF.resized_crop(mask, *box, [VIEW, VIEW], T.InterpolationMode.NEAREST)
        if torch.rand(1) < 0.5:
            part, inside = TF.hflip(part), TF.hflip(inside)
        views.append((_normalised(RECOLOR(part)), _labels(inside)))
    return views


# The calls that decide the values of a sample: no way of making the same sample takes less.


def ssul_floor(sample: Sample, draw: Random) -> None:
    """Reading the JPEG, and Pillow's resizing."""
    image = Image.open(sample.image).convert("RGB")
    scale = draw.uniform(0.5, 2)
    image.resize([int(side * scale) for side in image.size], Image.Resampling.BILINEAR)


def ncdss_floor(sample: Sample, _draw: Random, hues: int = 0) -> None:
    """Reading the JPEG, OpenCV's cubic warp and resizing, Pillow's hue there and back."""
    image = cv2.imread(str(sample.image))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1.1)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
    image = cv2.resize(image, (SQUARE, SQUARE), interpolation=cv2.INTER_CUBIC)
    for _ in range(hues):
        Image.fromarray(image).convert("HSV").convert("RGB")


def contrast_floor(sample: Sample, _draw: Random) -> None:
    """Reading the JPEG; for each view Pillow's resizing, and for four in five its hue."""
    image = Image.open(sample.image).convert("RGB")
    for _ in range(2):
        box = T.RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3))
        view = TF.resized_crop(image, *box, [VIEW, VIEW], T.InterpolationMode.BILINEAR)
        if torch.rand(1) < 0.8:
            view.convert("HSV").convert("RGB")


# ---- ZS3Net


def _zero_shot(size: int) -> Row:
    """DRAWS samples of a decoded photograph of 500 x 375 pixels; half of them are blurred."""
    r = np.random.RandomState(0)
    label = np.kron(r.randint(0, 21, (21, 21)), np.ones((24, 24)))[:375, :500].astype(np.uint8)
    fields = {"image": r.randint(0, 256, (375, 500, 3)).astype(np.uint8), "label": label}
    vectors, crop = r.randn(256, WORDS).astype(np.float32), ScaleBlurCrop(size)

    def theirs() -> None:
        for seed in range(DRAWS):
            zero_shot_sample(fields, size, vectors, Random(seed))

    def ours() -> None:
        for seed in range(DRAWS):
            made = crop(fields, np.random.default_rng(seed))
            torch.from_numpy(np.ascontiguousarray(made["image"].transpose(2, 0, 1)))

    return Row("ZS3Net sample", theirs, ours, DRAWS, note="ours leaves word vectors to the device")


def zero_shot_sample(fields: dict[str, np.ndarray], size: int, vectors: np.ndarray, draw: Random) -> tuple:
    """Flipped, scaled, padded, cropped and blurred by PIL: image, label and the word vector of every pixel."""
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
    words = torch.from_numpy(vectors[np.asarray(mask)].transpose(2, 0, 1).copy())
    return _normalised(image), torch.from_numpy(np.asarray(mask).astype(np.float32)), words


# ---- SimFormer


def _weak_shot(images: int, size: int) -> Iterator[Row]:
    yield _partners(images)
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 5)
    label = rng.integers(0, STUFF, (8, 8)).astype(np.uint8).repeat(60, 0).repeat(80, 1)
    fields, novel, crop = (
        {"image": image, "label": label},
        set(range(0, STUFF, 4)),
        WeakCrop(size, SIZES, LONGEST, STUFF),
    )

    def same() -> None:
        assert np.unique(label).tolist() == np.flatnonzero(classes_in(label, STUFF)).tolist()

    yield Row("SimFormer: classes of a mask", lambda: np.unique(label), lambda: classes_in(label, STUFF), same=same)

    def theirs() -> None:
        for seed in range(DRAWS):
            weak_shot_sample(fields, size, novel, np.random.default_rng(seed))

    def ours() -> None:
        for seed in range(DRAWS):
            crop(fields, np.random.default_rng(seed))

    yield Row("SimFormer: sample", theirs, ours, DRAWS, note="ours leaves a plane for each class to the device")


def weak_shot_sample(fields: dict, size: int, novel: set[int], rng: np.random.Generator) -> tuple:
    """The whole image resized, the label as float64; a plane for each class, empty for novel ones."""
    image, label = fields["image"], fields["label"].astype(np.float64)
    rows_, columns = shortest_edge(label.shape, int(rng.choice(SIZES)), LONGEST)
    image = np.asarray(Image.fromarray(image).resize((columns, rows_), Image.Resampling.BILINEAR))
    resized = torch.nn.functional.interpolate(torch.from_numpy(label)[None, None], (rows_, columns), mode="nearest")
    label = resized[0, 0].numpy()
    height, width = min(rows_, size), min(columns, size)
    top, left = rng.integers(rows_ - height + 1), rng.integers(columns - width + 1)
    image, label = image[top : top + height, left : left + width], label[top : top + height, left : left + width]
    image = saturation(contrast(brightness(image, 10.0), 1.1), 1.1) if rng.random() < 0.5 else hue(image, 5)
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    room = (0, size - width, 0, size - height)
    pixels = torch.nn.functional.pad(torch.from_numpy(image.transpose(2, 0, 1).copy()), room, value=128)
    padded = torch.nn.functional.pad(torch.from_numpy(label.copy()), room, value=IGNORE).numpy()
    present = np.unique(padded)
    planes = [np.zeros(padded.shape) if int(n) in novel else padded == n for n in present[present != IGNORE]]
    masks = torch.stack([torch.from_numpy(np.ascontiguousarray(plane)).double() for plane in planes])
    return pixels.numpy(), padded, masks.numpy()


def _partners(images: int) -> Row:
    """Candidate partners of 64 images among all; an image shows about eight classes."""
    presence = (np.random.default_rng(0).random((images, STUFF)) < 8 / STUFF).astype(np.uint8)
    columns = tuple(range(0, STUFF, 4))
    shown = [set(np.flatnonzero(row).tolist()) for row in presence]
    partners, few = Partners(presence, columns), range(min(64, images))

    def theirs() -> list[tuple]:
        return [candidates(shown, set(columns), index) for index in few]

    def same() -> None:
        for (alone, several, common), ours in zip(theirs(), partners.candidates(few), strict=True):
            assert {number: len(found) for number, found in alone.items()} == {n: len(f) for n, f in ours.alone.items()}
            assert len(several) == len(ours.novel) and len(common) == len(ours.base)

    name = f"SimFormer: candidates among {images} images"
    return Row(name, theirs, lambda: partners.candidates(few), len(few), same)


def candidates(shown: list[set[int]], novel: set[int], index: int) -> tuple[dict[int, set[int]], set[int], set[int]]:
    """Images that share with one image exactly one novel class, by class; with several novel classes; a base class."""
    own_novel, own_base = shown[index] & novel, shown[index] - novel
    alone: dict[int, set[int]] = {number: set() for number in own_novel}
    several: set[int] = set()
    common: set[int] = set()
    for other, classes in enumerate(shown):
        both = own_novel & classes
        if len(both) == 1:
            _add(alone[next(iter(both))], other, ALONE)
        elif len(own_novel) >= 2:
            _add(several, other, COMMON)
        if own_base & classes:
            _add(common, other, COMMON)
    return alone, several, common


def _add(kept: set[int], item: int, most: int) -> None:
    kept.add(item)
    if len(kept) > most:
        kept.remove(list(kept)[np.random.randint(most)])


# ---- weights


def _checkpoint(path: Path, mb: int) -> Row:
    """A checkpoint in the page cache: torch.load, and our reader, which checks what it reads."""
    save_torch(path, {"model": {f"layer{number}": torch.randn(1 << 20) for number in range(mb // 4)}})
    theirs = partial(torch.load, path, map_location="cpu", weights_only=True)

    def same() -> None:
        read = read_weights(path).state
        assert all(read[name].equal(value) for name, value in theirs()["model"].items())

    note = "ours verifies the checksums of the archive and that every weight is finite"
    return Row(f"checkpoint of {mb} MB", theirs, partial(read_weights, path), 1, same, note)
