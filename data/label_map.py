"""Label re-indexing as one table look-up."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from utils.errors import UserError
from utils.labels import IGNORE, WIDE_IGNORE


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`table` int32 [256 or 65536]: new value of each label value, -1 where a value is not allowed.

    A table of 65536 entries reads and gives 16-bit labels, whose ignored value is 65535 instead of 255.
    """

    table: np.ndarray

    @classmethod
    def from_pairs(cls, pairs: dict[int, int]) -> "LabelMap":
        """A map from old to new values; the ignored value stays what it is, everything else is an error.

        It is wide when a value does not fit into 8 bits beside the ignored one.
        """
        wide = max(pairs, default=0) >= IGNORE or max(pairs.values(), default=0) > IGNORE
        ignored = WIDE_IGNORE if wide else IGNORE
        table = np.full(ignored + 1, -1, dtype=np.int32)
        for old, new in {**pairs, ignored: ignored}.items():
            table[old] = new
        return cls(table)

    @property
    def wide(self) -> bool:
        return len(self.table) > IGNORE + 1

    @cached_property
    def _values(self) -> np.ndarray:
        return self.table.astype(np.uint16 if self.wide else np.uint8)

    @cached_property
    def _wrong(self) -> np.ndarray:
        return (self.table < 0).astype(np.uint8)

    def __call__(self, label: np.ndarray, where: str = "label") -> np.ndarray:
        """Map [H, W] of uint8 to uint8, or, of a wide map, uint8 or uint16 to uint16.

        Raises UserError that names `where` and the lowest value not allowed.
        """
        if not self.wide and label.dtype == np.uint8:
            self._check(cv2.LUT(label, self._wrong), label, where)  # LUT is two to three times faster than indexing
            return cv2.LUT(label, self._values)
        if self.wide and label.dtype == np.uint8:  # 8-bit files of a wide data set ignore 255
            label = np.where(label == IGNORE, np.uint16(WIDE_IGNORE), label.astype(np.uint16))
        inside = np.minimum(label, len(self.table) - 1)
        self._check((self.table[inside] < 0) | (label != inside), label, where)
        return self._values[inside]

    def _check(self, wrong: np.ndarray, label: np.ndarray, where: str) -> None:
        if wrong.any():
            value, allowed = label[wrong > 0].min(), np.flatnonzero(self.table >= 0)
            raise UserError(f"{where}: label value {value} is not a class here; allowed: {_ranges(allowed)}")


def _ranges(values: np.ndarray) -> str:
    """[0, 1, 2, 5, 255] -> '0-2, 5, 255'."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
