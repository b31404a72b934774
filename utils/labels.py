"""The ignored label value: such pixels are neither trained on nor evaluated.

Label maps have 8 bits if their values fit: uint8 arrays and tensors, or int64 computed from them; 255 is ignored.
Wider label maps are uint16 arrays and int32 tensors (torch supports few operations on uint16); 65535 is ignored.
"""

from typing import Any

IGNORE = 255
WIDE_IGNORE = 65535


def is_wide(num_values: int) -> bool:
    """Whether the label values 0 to num_values - 1 and the ignored value need more than 8 bits."""
    return num_values > IGNORE


def ignored(num_values: int) -> int:
    """The ignored value of label maps with `num_values` label values."""
    return WIDE_IGNORE if is_wide(num_values) else IGNORE


def ignore_of(label: Any) -> int:
    """The ignored value of an array or tensor, given by its dtype."""
    return WIDE_IGNORE if str(label.dtype).endswith(("uint16", "int32")) else IGNORE
