"""Re-indexing of label maps by a look-up table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from utils.errors import UserError
from utils.labels import IGNORE, WIDE_IGNORE, ignore_of, ignored


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`table` int32 [256 or 65536]: new value of each label value, -1 for a value that is not allowed.

    Tables of 65536 entries also map 16-bit labels, whose ignored value is 65535 instead of 255. The result has 16 bits
    only if the new values need them.
    """

    table: np.ndarray

    @classmethod
    def from_pairs(cls, pairs: Mapping[int, int | None]) -> "LabelMap":
        """A map from old to new values; None: ignored. The ignored value stays ignored, all others are errors."""
        new_values = [new for new in pairs.values() if new is not None]
        old_ignored, new_ignored = ignored(1 + max(pairs, default=0)), ignored(1 + max(new_values, default=0))
        table = np.full(old_ignored + 1, -1, dtype=np.int32)
        for old, new in {**pairs, old_ignored: None}.items():
            table[old] = new_ignored if new is None else new
        return cls(table)

    def new_value(self, old: int) -> int | None:
        """New value of an old one; None: ignored."""
        value = int(self.table[old])
        return None if value == ignore_of(self._values) else value

    def new_values(self, old: Iterable[int]) -> frozenset[int]:
        """New values of old ones, without the ignored value."""
        return frozenset(new for value in old if (new := self.new_value(value)) is not None)

    @cached_property
    def _values(self) -> np.ndarray:
        return self.table.astype(np.uint16 if self.table.max() > IGNORE else np.uint8)

    @cached_property
    def _wrong(self) -> np.ndarray:
        return (self.table < 0).astype(np.uint8)

    def __call__(self, label: np.ndarray, where: str = "label") -> np.ndarray:
        """Maps a label [H, W], uint8 or uint16, to uint8, or to uint16 if the new values need it.

        Raises UserError with `where` and the lowest value that is not allowed.
        """
        if len(self.table) == IGNORE + 1 and label.dtype == np.uint8:
            self._check(cv2.LUT(label, self._wrong), label, where)  # LUT is two to three times faster than indexing
            return cv2.LUT(label, self._values)
        if label.dtype == np.uint8:  # 8-bit files of a wide data set ignore 255
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
