"""Pairs of training images that share classes, for losses across two images (SimFormer).

The number of classes that two images share is the product of the presence matrix [N, K] (N images, K classes) with
itself. The official program compares images as sets and stores the result in a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from data.dataset import SegmentationDataset
from data.transforms import Random

Rule = Literal["official", "fixed", "binter", "ninter", "rand"]
ALONE, COMMON = 500, 50  # maximum number of candidates per class, and in total; official: an empty list counts as full
RAREST = 0.01  # probability of taking the class with the fewest candidates


@dataclass(frozen=True)
class Partners:
    """Draws the second image of a pair.

    official  an image with several novel classes meets one that shares exactly one of them, a class drawn by chance or,
              1 time in 100, the one with the fewest such images; any other image meets one that shares a base class
    fixed     an image with a novel class meets one that shares a novel class drawn by chance, no other novel class if
              there is such an image; one without, or without such a partner, meets one that shares a base class
    binter    one that shares a base class, else one of those with several novel classes
    ninter    the reverse
    rand      any image

    An image without a partner meets itself. The official rules know at most 50 or 500 candidates per list, chosen by
    `seed` once and for all, and take lists of one for empty; none of them lets an image with one novel class meet
    another with it.
    """

    presence: np.ndarray  # uint8 or bool [N, K]
    novel: Sequence[int]  # columns
    rule: Rule = "official"
    seed: int = 0

    def draw(self, index: int, rng: Random) -> int:
        """The partner of an image."""
        if self.rule == "rand":
            found: np.ndarray = np.arange(len(self.presence))
        elif self.rule == "official":
            found = self._official(index, rng)
        elif self.rule == "fixed":
            found = self._fixed(index, rng)
        else:
            (lists,) = self.candidates([index])
            ordered = (lists.base, lists.novel) if self.rule == "binter" else (lists.novel, lists.base)
            found = next((one for one in ordered if len(one) > 1), np.array([index]))
        others = found[found != index]
        return int(others[int(rng.random() * len(others))]) if len(others) else index

    def _official(self, index: int, rng: Random) -> np.ndarray:
        (lists,) = self.candidates([index])
        if len(lists.alone) > 1:
            by_class = list(lists.alone.values())
            if rng.random() < RAREST:
                return min(by_class, key=lambda found: len(found) or ALONE)
            return by_class[int(rng.random() * len(by_class))]
        return next((one for one in (lists.novel, lists.base) if len(one) > 1), np.array([index]))

    def _fixed(self, index: int, rng: Random) -> np.ndarray:
        own = np.flatnonzero(self._novel[index])
        if len(own):
            column = own[int(rng.random() * len(own))]
            sharing = np.flatnonzero(self._novel[:, column])
            sharing = sharing[sharing != index]
            alone = sharing[self._novel[sharing][:, own].sum(1) == 1]
            if len(sharing):
                return alone if len(alone) else sharing
        return np.flatnonzero(self._base @ self._base[index])

    def candidates(self, indices: Sequence[int]) -> list["Candidates"]:
        """The candidate lists of the official program for some images, from one matrix product."""
        novel_shared, base_shared = (part[list(indices)] @ part.T for part in (self._novel, self._base))
        return [
            self._lists(index, in_novel, in_base)
            for index, in_novel, in_base in zip(indices, novel_shared, base_shared, strict=True)
        ]

    def _lists(self, index: int, novel_shared: np.ndarray, base_shared: np.ndarray) -> "Candidates":
        """Candidates of one image; novel_shared, base_shared float32 [N]: number of classes shared with each image."""
        rng, own = np.random.default_rng([self.seed, index]), np.flatnonzero(self._novel[index])
        sharing_one = np.flatnonzero(novel_shared == 1)
        alone = {
            self.novel[int(column)]: _kept(sharing_one[self._novel[sharing_one, column] > 0], ALONE, rng)
            for column in own
        }
        several = np.flatnonzero(novel_shared != 1) if len(own) > 1 else np.zeros(0, np.int64)
        return Candidates(alone, _kept(several, COMMON, rng), _kept(np.flatnonzero(base_shared), COMMON, rng))

    @cached_property
    def _novel(self) -> np.ndarray:
        return self.presence[:, list(self.novel)].astype(np.float32)  # a product of floats is BLAS's

    @cached_property
    def _base(self) -> np.ndarray:
        return np.delete(self.presence, list(self.novel), axis=1).astype(np.float32)


@dataclass(frozen=True)
class Candidates:
    """Indices of the possible partners of an image; may include the image itself.

    alone   novel class -> images that share exactly this one novel class with it
    novel   if the image has several novel classes: all other images, even those that share none (as the official code)
    base    images that share a base class
    """

    alone: dict[int, np.ndarray]
    novel: np.ndarray
    base: np.ndarray


def _kept(found: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most `most` candidates: each further one replaces a random earlier one."""
    kept = found[:most].copy()
    if len(found) > most:
        kept[rng.integers(most, size=len(found) - most)] = found[most:]  # of one place the last one stays
    return kept


class WeakImages(SegmentationDataset):
    """A data set whose transform also gets the field "tags" uint8 [K] of an image, if `tags` [N, K] is given.

    With `partners`, a sample also has the fields of a partner image, prefixed with "partner_" and augmented
    independently. Seed, epoch and image determine the sample.
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
