"""Training images of weak-shot segmentation: each with its tags, alone or with a partner that shares classes."""

from typing import Any

import numpy as np

from data.dataset import SegmentationDataset
from data.weakshot.pairs import Partners


class WeakImages(SegmentationDataset):
    """A data set whose transform also gets "tags" uint8 [K] of an image, if there are `tags` [N, K].

    With `partners` a sample also has the fields of another image, under names that begin with "partner_", with an
    augmentation of its own. Seed, epoch and image decide it all.
    """

    def __init__(self, *args: Any, tags: np.ndarray | None = None, partners: Partners | None = None, **options: Any):
        super().__init__(*args, **options)
        self.tags, self.partners = tags, partners

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        made = super().sample(index, rng)
        if self.partners is None:
            return made
        partner = super().sample(self.partners.draw(made["index"], rng), rng)
        return made | {f"partner_{name}": values for name, values in partner.items()}

    def _read(self, index: int) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        arrays, size = super()._read(index)
        return (arrays if self.tags is None else arrays | {"tags": self.tags[index]}), size
