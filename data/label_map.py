"""Label re-indexing as one table look-up."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.errors import UserError

IGNORE = 255


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`table` int16 [256]: new value of each label value, -1 where a value is not allowed."""

    table: np.ndarray

    @classmethod
    def from_pairs(cls, pairs: dict[int, int]) -> "LabelMap":
        """A map from old to new values; 255 stays 255, everything else is an error."""
        table = np.full(256, -1, dtype=np.int16)
        for old, new in {**pairs, IGNORE: IGNORE}.items():
            table[old] = new
        return cls(table)

    @cached_property
    def _values(self) -> np.ndarray:
        return self.table.astype(np.uint8)

    def __call__(self, label: np.ndarray, where: str = "label") -> np.ndarray:
        """Map uint8 [H, W] to uint8 [H, W]. Raises UserError that names `where` and the first value not allowed."""
        present = np.bincount(label.ravel(), minlength=256) > 0
        wrong = np.flatnonzero(present & (self.table < 0))
        if len(wrong):
            allowed = np.flatnonzero(self.table >= 0)
            raise UserError(f"{where}: label value {wrong[0]} is not a class here; allowed: {_ranges(allowed)}")
        return self._values[label]


def _ranges(values: np.ndarray) -> str:
    """[0, 1, 2, 5, 255] -> '0-2, 5, 255'."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
