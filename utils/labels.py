"""The label value that means: not counted, not trained on.

Label maps have 8 bits as long as their values fit (uint8 arrays and tensors, and the int64 that is computed from them);
wider ones are uint16 arrays, and int32 tensors, because torch computes little with uint16.
"""

from typing import Any

IGNORE = 255
WIDE_IGNORE = 65535


def is_wide(num_values: int) -> bool:
    """Whether so many label values, 0 to num_values - 1, need more than 8 bits beside the ignored one."""
    return num_values > IGNORE


def ignored(num_values: int) -> int:
    """The ignored value beside so many label values."""
    return WIDE_IGNORE if is_wide(num_values) else IGNORE


def ignore_of(label: Any) -> int:
    """The ignored value of an array or tensor, by its type."""
    return WIDE_IGNORE if str(label.dtype).endswith(("uint16", "int32")) else IGNORE
