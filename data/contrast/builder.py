"""Pre-training of MaskContrast: two views of an image and of its object mask, which images have a usable one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

from data.crops import ResizedCrop
from data.dataset import SegmentationDataset
from data.io import MaskRule, OneSidedMask, read_mask
from data.layouts import Sample
from data.lists import find_list, image_list, warn_of_overlap
from data.loading import Source
from data.source import DataContext
from data.transforms import Jitter, Random, ValTransform, color_jitter, grayscale
from utils.config.common import Transforms
from utils.config.contrast import ContrastConfig
from utils.errors import UserError
from utils.log import log
from utils.measure.protocol import EvalProtocol
from utils.measure.spec import Spec

FIELDS = ("image", "saliency")
SALIENCY = ("background", "object")
AREAS = (0.2, 1.0)  # of a crop, as a share of the image
JITTER, GRAY = 0.8, 0.2  # probabilities
WEAK = Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
LEAST, MOST = 0.01, 0.99  # share of a view that its mask must exceed, and stay below


class TwoViews(ResizedCrop):
    """Fields "key" and "query" [S, S, 3] with "key_saliency" and "query_saliency" [S, S], drawn one after the other.

    Each is a crop of 0.2 to 1 of the image, resized and flipped (p 0.5), its colours jittered (p 0.8) or taken away
    (p 0.2). None when the object covers too little or too much of one of them: both are to be drawn again.
    """

    def __init__(self, size: int, transforms: Transforms = "official"):
        super().__init__(size, transforms, AREAS)

    def __call__(  # type: ignore[override]  # None, which a crop alone never gives
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
    """Jittered brightness, contrast, saturation (0.4) and hue (0.1) in 8 of 10 draws, no colour at all in 2 of 10."""
    if rng.random() < JITTER:
        image = color_jitter(image, rng, WEAK, transforms)
    return grayscale(image) if rng.random() < GRAY else image


def can_be_valid(mask: np.ndarray) -> bool:
    """Whether some crop may hold enough object and enough background: its least share of the image decides."""
    share = mask.mean()
    return bool(LEAST * AREAS[0] < share < 1 - (1 - MOST) * AREAS[0])


@dataclass(frozen=True)
class ContrastData:
    """The images of a run, those to train on with a usable mask, and the data sets made from them."""

    context: DataContext[ContrastConfig]
    train_samples: Sequence[Sample]
    val_samples: Sequence[Sample]  # may be empty: the published data has no masks of validation images

    @classmethod
    def open(cls, cfg: ContrastConfig) -> "ContrastData":
        context, d = DataContext.open(cfg), cfg.data
        ids = image_list(context, d.train_list)
        found = _index(context, ids, d.missing)
        usable = _usable(context.cut(found), d.mask_rule)
        if not usable:
            wanted = f"an object mask that covers more than {LEAST * AREAS[0]:.1%} and leaves background"
            raise UserError(
                f"data.train_list={d.train_list}: none of its {len(ids)} images has {wanted}; check "
                "data.saliency_folder (object 1 or 255)"
            )
        log.info("%d images to train on", len(usable))
        val = _validation(context)
        warn_of_overlap((sample.id for sample in usable), (sample.id for sample in val))
        return cls(context, usable, val)

    @property
    def cfg(self) -> ContrastConfig:
        return self.context.cfg

    def source(self, name: str) -> Source:
        dataset = self._dataset(self.train_samples, TwoViews(self.cfg.data.image_size, self.cfg.data.transforms))
        return self.context.source(name, dataset, self.cfg.training.batch_size)

    def _dataset(self, samples: Sequence[Sample], transform) -> SegmentationDataset:
        return self.context.dataset(samples, FIELDS, transform=transform, mask_rule=self.cfg.data.mask_rule)

    def protocol(self) -> EvalProtocol | None:
        """How well the saliency head finds the masks of the validation images; None without any."""
        if not self.val_samples:
            return None
        images = self._dataset(self.val_samples, ValTransform(self.cfg.data.image_size))
        loader = self.context.loader(images, self.cfg.training.batch_size)
        return EvalProtocol(loader, Spec(SALIENCY, len(SALIENCY)), truth="saliency", stage="saliency")

    def evaluation(self, network) -> EvalProtocol:
        """For eval.py; the embedding itself is evaluated by probe_features.py."""
        found = self.protocol()
        if found is None:
            raise UserError(f"data.root={self.context.root}: no validation image has a saliency map to compare with")
        return found


def _validation(context: DataContext[ContrastConfig]) -> list[Sample]:
    """Validation images that have a usable mask; a list that is not asked for by name may be absent."""
    d = context.cfg.data
    name = d.val_list or context.layout.val_list
    if not d.val_list and find_list(context, name) is None:
        return []
    return _usable(_index(context, context.cut(image_list(context, name)), "drop"), d.mask_rule)


def _index(context: DataContext[ContrastConfig], ids: Sequence[str], missing: Literal["error", "drop"]) -> list[Sample]:
    return context.index_all(ids, FIELDS, saliency_folder=context.cfg.data.saliency_folder, missing=missing)


def _usable(samples: Sequence[Sample], rule: MaskRule) -> list[Sample]:
    """Those whose mask can be part of a valid view."""

    def valid(sample: Sample) -> bool:
        assert sample.saliency, sample  # a field of every sample here
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
        log.info("%d images left out: empty or full masks, as %s", len(samples) - len(usable), first.saliency)
    return usable
