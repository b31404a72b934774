"""Training batches that depend only on (seed, source, epoch, step), and loaders for evaluation."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, Subset, default_collate

from data.dataset import Draw, SegmentationDataset
from data.io import one_opencv_thread
from utils import dist
from utils.errors import UserError


class EpochBatches(Sampler[list[Draw]]):
    """This process's share of each batch of one epoch; consecutive shuffled passes over the data.

    Draws depend only on (seed, name, epoch): training resumes at any step, and any number of processes or workers
    reads the same samples.
    """

    def __init__(self, size: int, batch_size: int, seed: int, name: str):
        self.size, self.batch_size = size, batch_size
        self.key = (seed, zlib.crc32(name.encode()))
        self.epoch, self.steps = 0, range(0)

    def select(self, epoch: int, steps: range) -> None:
        self.epoch, self.steps = epoch, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        orders: dict[int, np.ndarray] = {}
        for step in self.steps:
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            yield [self._draw(position, orders) for position in positions[dist.rank() :: dist.world_size()]]

    def _draw(self, position: int, orders: dict[int, np.ndarray]) -> Draw:
        cycle, offset = divmod(position, self.size)
        if cycle not in orders:
            orders[cycle] = np.random.default_rng([*self.key, self.epoch, cycle]).permutation(self.size)
        return Draw(int(orders[cycle][offset]), self.epoch, cycle)


class Source:
    """A named training set with its loader; workers live as long as the source."""

    def __init__(self, name: str, dataset: SegmentationDataset, batch_size: int, *, seed: int, workers: int, pin: bool):
        if not len(dataset):
            raise UserError(f"the image list '{name}' is empty; training needs at least one image in it")
        self.dataset, self.steps_per_pass = dataset, len(dataset) // batch_size
        self.batches = EpochBatches(len(dataset), batch_size, seed, name)
        self.loader = DataLoader(
            dataset,
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            worker_init_fn=one_opencv_thread,
            generator=torch.Generator(),  # the default generator would advance the global random state
        )

    def epoch(self, epoch: int, steps: range) -> Iterator[dict]:
        self.batches.select(epoch, steps)
        return iter(self.loader)

    def ids(self, indices: list[int]) -> list[str]:
        """Image ids of the "index" of a batch."""
        return [self.dataset.samples[index].id for index in indices]


def collate(samples: list[Any]) -> Any:
    """A batch; "native" becomes a list, as its size differs between samples."""
    if not isinstance(samples[0], dict) or "native" not in samples[0]:
        return default_collate(samples)
    others = [{name: value for name, value in sample.items() if name != "native"} for sample in samples]
    return {**default_collate(others), "native": [sample["native"] for sample in samples]}


def eval_loader(dataset: SegmentationDataset, batch_size: int, *, workers: int, pin: bool) -> DataLoader:
    """Loader over every sample once, in order; each process reads its share, without padding.

    Workers live as long as the loader.
    """
    shard = Subset(dataset, range(dist.rank(), len(dataset), dist.world_size()))
    return DataLoader(
        shard,
        batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
        collate_fn=collate,
        worker_init_fn=one_opencv_thread,
        generator=torch.Generator(),
    )
