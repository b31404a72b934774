"""The shared part of every data builder: data root, image lists with what is read of them, data sets and loaders."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from data.dataset import SegmentationDataset, Transform
from data.io import MaskRule
from data.label_map import LabelMap
from data.layouts import TRAIN_FOLDER, Layout, Missing, Sample, find_layout, index_samples
from data.loading import Source, eval_loader
from utils.checkpoint import read_list
from utils.config.common import Common
from utils.errors import UserError
from utils.inputs import DataFiles, data_roots

C = TypeVar("C", bound=Common)
T = TypeVar("T")
ListReader = Callable[[Path], list[str]]
DRY_IMAGES = 40  # enough for PCA to 32 dimensions


@dataclass(frozen=True)
class DataContext(Generic[C]):
    """Data root, layout and configuration of a run. A dry run reads only the first images of every list."""

    cfg: C
    root: Path
    layout: Layout
    files: DataFiles = field(default_factory=DataFiles, compare=False)  # all files looked for, for `start_run`
    read_list: ListReader = field(default=read_list, compare=False)

    @classmethod
    def open(cls, cfg: C) -> "DataContext[C]":
        """Root: `data.root`, else $DATA_ROOT, else datasets/<dataset>. Raises UserError if the folder is missing."""
        root = data_roots(cfg)["root"]
        if not root.is_dir():
            raise UserError(
                f"data.root={root}: no such folder; set data.root or $DATA_ROOT (layout: README, section Data)"
            )
        if cfg.data.lists and not cfg.data.lists.is_dir():
            raise UserError(f"data.lists={cfg.data.lists}: no such folder; give one with image lists, or leave it out")
        return cls(cfg, root, find_layout(root, cfg.data.layout))

    def cut(self, items: Iterable[T]) -> list[T]:
        """The whole list; in a dry run its first DRY_IMAGES items."""
        return list(items)[:DRY_IMAGES] if self.cfg.run.dry else list(items)

    def index(
        self,
        ids: Iterable[str],
        fields: tuple[str, ...],
        *,
        missing: Missing = "error",
        label_folder: str = TRAIN_FOLDER,
        saliency_folder: str | None = None,
        whole: bool = False,
    ) -> list[Sample]:
        """Samples with the paths of their fields, see data.layouts.index_samples; `whole` also in a dry run."""
        return index_samples(
            self.root,
            list(ids) if whole else self.cut(ids),
            fields=fields,
            layout=self.layout,
            missing=missing,
            looked_for=self.files,
            label_folder=label_folder,
            saliency_folder=saliency_folder,
        )

    def dataset(
        self,
        samples: Sequence[Sample],
        fields: tuple[str, ...],
        kind: type[SegmentationDataset] = SegmentationDataset,
        **options: Any,
    ) -> SegmentationDataset:
        """A data set with the run's seed, cache and size limit. `options` are further arguments of `kind`."""
        seed, cache, max_side = self.cfg.seed, self.cfg.data.cache, self.cfg.data.max_side
        return kind(samples, fields, seed=seed, cache=cache, max_side=max_side, **options)

    def source(self, name: str, dataset: SegmentationDataset, batch_size: int) -> Source:
        """A named training source. Its batches depend on seed, name and epoch."""
        workers = self.cfg.data.workers
        return Source(name, dataset, batch_size, seed=self.cfg.seed, workers=workers, pin=self._pin)

    def loader(self, dataset: SegmentationDataset, batch_size: int, native: bool = False) -> DataLoader:
        """Loader over this process's share of a data set, in order; `native` adds labels at file size."""
        dataset = dataset.with_native() if native else dataset
        return eval_loader(dataset, batch_size, workers=self.cfg.data.workers, pin=self._pin)

    @property
    def _pin(self) -> bool:
        """Whether batches go to a GPU; copies from pinned memory overlap with computation."""
        device = self.cfg.device
        return torch.cuda.is_available() if device == "auto" else device.startswith("cuda")


@dataclass(frozen=True)
class ImageSet:
    """An image list, and what is read of each of its images.

    Stages make data sets of it; `prepare_data.py check` opens every file of it and counts images by `class_names`.
    """

    name: str
    context: DataContext
    ids: Sequence[str]
    fields: tuple[str, ...] = ("image", "label")
    label_map: LabelMap | None = None
    mask_rule: MaskRule | None = None  # how saliency is read as 0 and 1; None: any values
    missing: Missing = "error"  # what happens to an image without one of its files
    label_folder: str = TRAIN_FOLDER  # folders as data.layouts.locate takes them
    saliency_folder: str | None = None
    showing: frozenset[int] | None = None  # only images whose mask, in a set before, holds one of these values
    validation: bool = False  # images of another set that are here, too, are a fault
    class_names: Mapping[int, str] = field(default_factory=dict)  # mask value -> name

    def samples(self, whole: bool = False) -> list[Sample]:
        """Paths of all fields, see DataContext.index."""
        return self.context.index(
            self.ids,
            self.fields,
            missing=self.missing,
            label_folder=self.label_folder,
            saliency_folder=self.saliency_folder,
            whole=whole,
        )

    def dataset(self, transform: Transform, fields: tuple[str, ...] = ()) -> SegmentationDataset:
        """The images with `fields`; default: all that are read."""
        label_map, rule, samples = self.label_map, self.mask_rule, self.samples()
        fields = fields or self.fields
        return self.context.dataset(samples, fields, transform=transform, label_map=label_map, mask_rule=rule)
