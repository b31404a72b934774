"""What every system's data has in common: the data root, the dry cut, data sets, sources and loaders."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from data.dataset import SegmentationDataset
from data.layouts import Layout, Sample, find_layout, index_samples
from data.loading import Source, eval_loader
from utils.checkpoint import read_list
from utils.config.common import Common
from utils.errors import UserError
from utils.inputs import DataFiles, data_roots

C = TypeVar("C", bound=Common)
DRY_IMAGES = 40  # enough for PCA to 32 dimensions


@dataclass(frozen=True)
class DataContext(Generic[C]):
    """The data root of a run with its layout, and the configuration of its system.

    A dry run sees the first images of every list only.
    """

    cfg: C
    root: Path
    layout: Layout
    files: DataFiles = field(default_factory=DataFiles, compare=False)  # what is read, for `start_run`
    read_list: Callable[[Path], list[str]] = field(default=read_list, compare=False)

    @classmethod
    def open(cls, cfg: C) -> "DataContext[C]":
        """`data.root`, else $DATA_ROOT, else datasets/<dataset>; UserError when there is no such folder."""
        root = data_roots(cfg)["root"]
        if not root.is_dir():
            raise UserError(
                f"data.root={root}: no such folder; set data.root or $DATA_ROOT (layout: README, section Data)"
            )
        if cfg.data.lists and not cfg.data.lists.is_dir():
            raise UserError(f"data.lists={cfg.data.lists}: no such folder; give one with image lists, or leave it out")
        return cls(cfg, root, find_layout(root, cfg.data.layout))

    def cut(self, items: Iterable[Any]) -> list[Any]:
        """All of a list, or its head in a dry run."""
        return list(items)[:DRY_IMAGES] if self.cfg.run.dry else list(items)

    def index(self, ids: Iterable[str], fields: tuple[str, ...], **where: Any) -> list[Sample]:
        """Samples with the paths of their fields, see data.layouts.index_samples."""
        return self.index_all(self.cut(ids), fields, **where)

    def index_all(self, ids: Iterable[str], fields: tuple[str, ...], **where: Any) -> list[Sample]:
        """The same without the dry cut, for lists that decide what is read."""
        return index_samples(self.root, ids, fields=fields, layout=self.layout, looked_for=self.files, **where)

    def dataset(
        self,
        samples: Sequence[Sample],
        fields: tuple[str, ...],
        kind: type[SegmentationDataset] = SegmentationDataset,
        **options: Any,
    ) -> SegmentationDataset:
        """A data set with the seed, cache and size limit of the run."""
        seed, cache, max_side = self.cfg.seed, self.cfg.data.cache, self.cfg.data.max_side
        return kind(samples, fields, seed=seed, cache=cache, max_side=max_side, **options)

    def source(self, name: str, dataset: SegmentationDataset, batch_size: int) -> Source:
        """A named training source; batches depend on the seed, its name and the epoch."""
        workers = self.cfg.data.workers
        return Source(name, dataset, batch_size, seed=self.cfg.seed, workers=workers, pin=self._pin)

    def loader(self, dataset: SegmentationDataset, batch_size: int, native: bool = False) -> DataLoader:
        """This process's share of a data set, in order; `native` with the labels at the size of their files, too."""
        dataset = dataset.with_native() if native else dataset
        return eval_loader(dataset, batch_size, workers=self.cfg.data.workers, pin=self._pin)

    @property
    def _pin(self) -> bool:
        """Whether batches go to a GPU, which copies from pinned memory while it computes."""
        device = self.cfg.device
        return torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
