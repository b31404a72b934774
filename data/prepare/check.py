"""Does a data root hold what the stages of a configuration will read?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.discovery import DiscoveryData
from data.io import read_image, read_label
from data.label_map import LabelMap
from data.layouts import Sample
from data.zeroshot import ZeroShotData
from utils.errors import UserError
from utils.labels import IGNORE, ignore_of


def check_discovery(data: DiscoveryData) -> Iterable[str]:
    """Open every file a discovery chain reads; lines of what was found.

    Pairs exist, sizes agree, label values are classes; the first fault is a UserError with its file's name.
    """
    lists = data.lists
    images_per_class: Counter[int] = Counter()
    labelled = () if data.is_unknown else lists.novel  # nobody has masks of unknown classes, and no stage reads them
    train = list(dict.fromkeys((*lists.base_train, *labelled)))
    novel: tuple[str, ...] = ("image", *(["label"] if labelled else []), "saliency")
    for role, ids, fields in (
        ("train", train, ("image", "label")),
        ("val", lists.val, ("image", "label")),
        ("novel", lists.novel, novel),
    ):
        missing = data.cfg.data.missing if role == "novel" else "error"
        samples = data.context.index(ids, fields, missing=missing)
        for sample in tqdm(samples, desc=role, leave=False, disable=None):
            values = check_sample(data, sample)
            if role == "train":
                images_per_class.update(values - {0, IGNORE})
        dropped = f", {len(ids) - len(samples)} without all files" if len(samples) < len(ids) else ""
        yield f"{role}: {len(samples)} images, no fault{dropped}"
    for index, name in enumerate(data.groups.names[1:], start=1):
        kind = "base" if index < data.num_known else "novel"
        yield f"  {kind:6}{name:20}{images_per_class[index]:6} training images"


def check_zeroshot(data: ZeroShotData) -> Iterable[str]:
    """The same for zero-shot segmentation; how many images show each class, and how many an unseen one."""
    train = [image.sample for image in data.train_images]
    val = list(data.val_images(data.cfg.data.image_size).samples)
    counts: Counter[int] = Counter()
    for role, samples in (("train", train), ("val", val)):
        for found in check_pairs(samples, data.label_map(), role):
            if role == "train":
                counts.update(found)
        yield f"{role}: {len(samples)} images, no fault"
    yield f"step 1: {len(data.seen_images)} training images show no unseen class, {len(data.unseen_images)} do"
    for number, name in enumerate(data.names):
        kind = "unseen" if number in data.unseen else "seen"
        yield f"  {kind:7}{name:20}{counts[number]:6} training images"
    vectors = data.embeddings
    yield f"word vectors: {vectors.shape[1]} numbers for each of {len(vectors)} classes"


def check_pairs(samples: Sequence[Sample], label_map: LabelMap, title: str) -> list[set[int]]:
    """Values in each mask under a label map, the ignored one left out.

    UserError for the first image or mask that cannot be read, has another value, or another size than its image.
    """

    def values(sample: Sample) -> set[int]:
        size, label = read_image(sample.image).shape[:2], label_map(sample.load_label(), where=str(sample.label))
        _same_size(sample, {sample.label: label.shape}, size)
        return set(np.unique(label).tolist()) - {ignore_of(label)}

    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(values, samples), total=len(samples), desc=title, leave=False, disable=None))


def check_sample(data: DiscoveryData, sample: Sample) -> set[int]:
    """Train ids in the mask; UserError when a value is no class, or a map has another size than the image."""
    size = read_image(sample.image).shape[:2]
    found: dict[Path | None, tuple[int, ...]] = {}
    values: set[int] = set()
    if sample.label:
        label = data.full_map()(sample.load_label(), where=str(sample.label))
        found[sample.label], values = label.shape, set(label.ravel().tolist())
    if sample.saliency:
        found[sample.saliency] = read_label(sample.saliency).shape
    _same_size(sample, found, size)
    return values


def _same_size(sample: Sample, found: Mapping[Path | None, tuple[int, ...]], size: tuple[int, ...]) -> None:
    for path, shape in found.items():
        if shape != size:
            raise UserError(f"{path}: {shape[1]}x{shape[0]} pixels, but {sample.image} has {size[1]}x{size[0]}")
