"""Label re-indexing as one table look-up."""

from dataclasses import dataclass
from functools import cached_property

import cv2
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

    @cached_property
    def _wrong(self) -> np.ndarray:
        return (self.table < 0).astype(np.uint8)

    def __call__(self, label: np.ndarray, where: str = "label") -> np.ndarray:
        """Map uint8 [H, W] to uint8 [H, W]. Raises UserError that names `where` and the lowest value not allowed."""
        wrong = cv2.LUT(label, self._wrong)  # two to three times faster than NumPy indexing
        if wrong.any():
            value, allowed = label[wrong > 0].min(), np.flatnonzero(self.table >= 0)
            raise UserError(f"{where}: label value {value} is not a class here; allowed: {_ranges(allowed)}")
        return cv2.LUT(label, self._values)


def _ranges(values: np.ndarray) -> str:
    """[0, 1, 2, 5, 255] -> '0-2, 5, 255'."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
