"""Data of MaskContrast pre-training: two views of an image and its object mask, from images with a usable mask."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from data.crops import ResizedCrop
from data.dataset import SegmentationDataset, Transform
from data.io import MaskRule, OneSidedMask, read_mask
from data.layouts import Missing, Sample
from data.lists import find_list, image_list, warn_of_overlap
from data.loading import Source
from data.protocol import SystemData, TrainedNetwork
from data.source import DataContext, ImageSet
from data.transforms import Jitter, Random, ValTransform, color_jitter, grayscale
from utils.config.common import Transforms
from utils.config.contrast import ContrastConfig
from utils.errors import UserError
from utils.log import log
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec

FIELDS = ("image", "saliency")
SALIENCY = ("background", "object")
AREAS = (0.2, 1.0)  # area of a crop as a share of the image
JITTER, GRAY = 0.8, 0.2  # probabilities
WEAK = Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
LEAST, MOST = 0.01, 0.99  # bounds, exclusive, of the object's share of a view


class TwoViews(ResizedCrop):
    """Two views of an image: "key", then "query", uint8 [S, S, 3], with "key_saliency" and "query_saliency" [S, S].

    Each view is a crop of 0.2 to 1 of the image area, resized, flipped (p = 0.5), colour-jittered (p = 0.8) and
    converted to grey (p = 0.2). Returns None if the object covers less than LEAST or more than MOST of a view; both
    views are then drawn again.
    """

    def __init__(self, size: int, transforms: Transforms = "official"):
        super().__init__(size, transforms, AREAS)

    def __call__(  # type: ignore[override]  # may return None, unlike a single crop
        self, fields: dict[str, np.ndarray], rng: Random
    ) -> dict[str, np.ndarray] | None:
        views: dict[str, np.ndarray] = {}
        for name in ("key", "query"):
            view = super().__call__(fields, rng)
            if not LEAST < view["saliency"].mean() < MOST:
                return None
            views |= {name: recolor(view["image"], rng, self.transforms), f"{name}_saliency": view["saliency"]}
        return views


def recolor(image: np.ndarray, rng: Random, transforms: Transforms = "official") -> np.ndarray:
    """Jitters brightness, contrast, saturation (0.4) and hue (0.1) with p = 0.8; converts to grey with p = 0.2."""
    if rng.random() < JITTER:
        image = color_jitter(image, rng, WEAK, transforms)
    return grayscale(image) if rng.random() < GRAY else image


def can_be_valid(mask: np.ndarray) -> bool:
    """Whether a crop of the smallest area can satisfy LEAST and MOST; mask [H, W] of 0 and 1."""
    share = mask.mean()
    return bool(LEAST * AREAS[0] < share < 1 - (1 - MOST) * AREAS[0])


@dataclass(frozen=True)
class ContrastData(SystemData[ContrastConfig]):
    """Images with a usable object mask, for training and for validation of the saliency head."""

    context: DataContext[ContrastConfig]
    train_samples: Sequence[Sample]
    val_samples: Sequence[Sample]  # empty for the published data, which has no masks of validation images

    @classmethod
    def open(cls, cfg: ContrastConfig) -> "ContrastData":
        """Scans all object masks. Raises UserError if no training image has a usable one."""
        context, d = DataContext.open(cfg), cfg.data
        train = train_set(context)
        usable = _usable(context.cut(train.samples(whole=True)), d.mask_rule)
        if not usable:
            wanted = f"an object mask that covers more than {LEAST * AREAS[0]:.1%} and leaves background"
            raise UserError(
                f"data.train_list={d.train_list}: none of its {len(train.ids)} images has {wanted}; check "
                "data.saliency_folder (object 1 or 255)"
            )
        log.info("%d images to train on", len(usable))
        listed = val_set(context)
        val = _usable(listed.samples(), d.mask_rule) if listed else []
        warn_of_overlap((sample.id for sample in usable), (sample.id for sample in val))
        return cls(context, usable, val)

    @classmethod
    def reads(cls, context: DataContext[ContrastConfig]) -> Iterator[ImageSet]:
        """Training images with their object masks, and the validation images that have one."""
        yield train_set(context)
        val = val_set(context)
        if val:
            yield val

    @property
    def cfg(self) -> ContrastConfig:
        return self.context.cfg

    def source(self, name: str) -> Source:
        """Training batches of two views, see TwoViews."""
        dataset = self._dataset(self.train_samples, TwoViews(self.cfg.data.image_size, self.cfg.data.transforms))
        return self.context.source(name, dataset, self.cfg.training.batch_size)

    def _dataset(self, samples: Sequence[Sample], transform: Transform) -> SegmentationDataset:
        return self.context.dataset(samples, FIELDS, transform=transform, mask_rule=self.cfg.data.mask_rule)

    def protocol(self) -> EvalProtocol | None:
        """Evaluation of the saliency head against the validation masks; None without any."""
        if not self.val_samples:
            return None
        images = self._dataset(self.val_samples, ValTransform(self.cfg.data.image_size))
        loader = self.context.loader(images, self.cfg.training.batch_size)
        return EvalProtocol(loader, Spec(SALIENCY, len(SALIENCY)), truth="saliency", stage="saliency")

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """For eval.py: the saliency head. probe_features.py evaluates the embedding."""
        found = self.protocol()
        if found is None:
            raise UserError(f"data.root={self.context.root}: no validation image has a saliency map to compare with")
        return found


def train_set(context: DataContext[ContrastConfig]) -> ImageSet:
    """Training images with their object masks."""
    return _object_set("train", context, context.cfg.data.train_list, context.cfg.data.missing)


def val_set(context: DataContext[ContrastConfig]) -> ImageSet | None:
    """Validation images that have an object mask; None if no list is configured and the default one is missing."""
    d = context.cfg.data
    name = d.val_list or context.layout.val_list
    if not d.val_list and find_list(context, name) is None:
        return None
    return replace(_object_set("val", context, name, "drop"), validation=True)


def _object_set(role: str, context: DataContext[ContrastConfig], name: str, missing: Missing) -> ImageSet:
    d, ids = context.cfg.data, image_list(context, name)
    rule, folder = d.mask_rule, d.saliency_folder
    return ImageSet(role, context, ids, FIELDS, mask_rule=rule, missing=missing, saliency_folder=folder)


def _usable(samples: Sequence[Sample], rule: MaskRule) -> list[Sample]:
    """The samples whose mask can give a valid view; the number of others is logged."""

    def valid(sample: Sample) -> bool:
        assert sample.saliency, sample
        try:
            return can_be_valid(read_mask(sample.saliency, rule))
        except OneSidedMask:
            return False

    with ThreadPoolExecutor() as pool:
        found = pool.map(valid, samples)
        answers = list(tqdm(found, total=len(samples), desc="scanning masks", leave=False, disable=None))
    usable = [sample for sample, ok in zip(samples, answers, strict=True) if ok]
    if len(usable) < len(samples):
        first = next(sample for sample, ok in zip(samples, answers, strict=True) if not ok)
        log.info("%d images left out: empty or full masks, such as %s", len(samples) - len(usable), first.saliency)
    return usable
