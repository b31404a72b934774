"""The data sets of MaskContrast's pre-training: two views of an image and of its object mask."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.crops import ResizedCrop
from data.dataset import SegmentationDataset
from data.discovery import DRY_IMAGES, data_root
from data.io import MaskRule, OneSidedMask, read_mask
from data.layouts import Sample, find_layout, index_samples
from data.lists import root_list
from data.loading import Source, eval_loader
from data.transforms import Random, ValTransform, color_jitter, grayscale
from utils.config.maskcontrast import MaskContrastConfig
from utils.errors import UserError
from utils.log import log

FIELDS = ("image", "saliency")
AREAS = (0.2, 1.0)  # of a crop, as a share of the image
JITTER, GRAY = 0.8, 0.2  # probabilities
LEAST, MOST = 0.01, 0.99  # share of a view that its mask must exceed, and stay below


class TwoViews(ResizedCrop):
    """Fields "key" and "query" [S, S, 3] with "key_saliency" and "query_saliency" [S, S], drawn one after the other.

    Each is a crop of 0.2 to 1 of the image, resized and flipped (p 0.5), its colours jittered (p 0.8) or taken away
    (p 0.2). None when the object covers too little or too much of one of them: both are to be drawn again.
    """

    def __init__(self, size: int):
        super().__init__(size, AREAS)

    def __call__(self, fields: dict[str, np.ndarray], rng: Random) -> dict[str, np.ndarray] | None:
        views = {}
        for name in ("key", "query"):
            view = super().__call__(fields, rng)
            if not LEAST < view["saliency"].mean() < MOST:
                return None
            views |= {name: recolor(view["image"], rng), f"{name}_saliency": view["saliency"]}
        return views


def recolor(image: np.ndarray, rng: Random) -> np.ndarray:
    """Jittered brightness, contrast, saturation (0.4) and hue (0.1) in 8 of 10 draws, no colour at all in 2 of 10."""
    if rng.random() < JITTER:
        image = color_jitter(image, rng, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    return grayscale(image) if rng.random() < GRAY else image


def can_be_valid(mask: np.ndarray) -> bool:
    """Whether some crop may hold enough object and enough background: its least share of the image decides."""
    share = mask.mean()
    return bool(LEAST * AREAS[0] < share < 1 - (1 - MOST) * AREAS[0])


@dataclass(frozen=True)
class ContrastViews:
    """The images of a run, those to train on with a usable mask, and the data sets made from them."""

    cfg: MaskContrastConfig
    train_samples: Sequence[Sample]
    val_samples: Sequence[Sample]  # may be empty: the published data has no masks of validation images

    @classmethod
    def open(cls, cfg: MaskContrastConfig) -> "ContrastViews":
        root, d = data_root(cfg), cfg.data
        ids = root_list(root, d.train_list)
        found = _index(cfg, root, ids, d.missing)
        usable = _usable(found[:DRY_IMAGES] if cfg.run.dry else found, d.mask_rule)
        if not usable:
            wanted = f"an object mask that covers more than {LEAST * AREAS[0]:.1%} and leaves background"
            raise UserError(
                f"data.train_list={d.train_list}: none of its {len(ids)} images has {wanted}; check "
                "data.saliency_folder (object 1 or 255)"
            )
        log.info("%d images to train on; %d of the list have no mask file", len(usable), len(ids) - len(found))
        return cls(cfg, usable, _validation(cfg, root))

    def source(self, name: str, pin: bool) -> Source:
        cfg = self.cfg
        dataset = self._dataset(self.train_samples, TwoViews(cfg.data.image_size))
        return Source(name, dataset, cfg.training.batch_size, seed=cfg.seed, workers=cfg.data.workers, pin=pin)

    def val_loader(self, pin: bool):
        dataset = self._dataset(self.val_samples, ValTransform(self.cfg.data.image_size))
        return eval_loader(dataset, self.cfg.training.batch_size, workers=self.cfg.data.workers, pin=pin)

    def _dataset(self, samples: Sequence[Sample], transform) -> SegmentationDataset:
        d = self.cfg.data
        options = {"seed": self.cfg.seed, "cache": d.cache, "max_side": d.max_side, "mask_rule": d.mask_rule}
        return SegmentationDataset(samples, FIELDS, transform=transform, **options)


def _validation(cfg: MaskContrastConfig, root: Path) -> list[Sample]:
    """Validation images that have a usable mask; a list that is not asked for by name may be absent."""
    name = cfg.data.val_list or find_layout(root).val_list
    if not cfg.data.val_list and not (find_layout(root).folder(root, "sets") / f"{name}.txt").is_file():
        return []
    ids = root_list(root, name)
    return _usable(_index(cfg, root, ids[:DRY_IMAGES] if cfg.run.dry else ids, "drop"), cfg.data.mask_rule)


def _index(cfg: MaskContrastConfig, root: Path, ids: Sequence[str], missing) -> list[Sample]:
    return index_samples(root, ids, fields=FIELDS, saliency_folder=cfg.data.saliency_folder, missing=missing)


def _usable(samples: Sequence[Sample], rule: MaskRule) -> list[Sample]:
    """Those whose mask can be part of a valid view."""

    def valid(sample: Sample) -> bool:
        try:
            return can_be_valid(read_mask(sample.saliency, rule))
        except OneSidedMask:
            return False

    with ThreadPoolExecutor() as pool:
        answers = pool.map(valid, samples)
        answers = list(tqdm(answers, total=len(samples), desc="scanning masks", leave=False, disable=None))
    usable = [sample for sample, ok in zip(samples, answers, strict=True) if ok]
    if len(usable) < len(samples):
        first = next(sample for sample, ok in zip(samples, answers, strict=True) if not ok)
        log.info("%d images left out: empty or full masks, as %s", len(samples) - len(usable), first.saliency)
    return usable
