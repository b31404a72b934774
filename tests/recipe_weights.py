"""Weights that anyone can draw again from the names of a state dict (tests/fixtures/*/README.md)."""

import zlib

import numpy as np
import torch


def recipe_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """New values for every entry: the entry NAME comes from RandomState(crc32(NAME))."""
    norms = {key.rpartition(".")[0] + "." for key, value in state.items() if is_norm(key, value)}
    return {key: draw(key, tuple(value.shape), norms) for key, value in state.items()}


def is_norm(key: str, value: torch.Tensor) -> bool:
    """Whether an entry shows that its layer is a norm."""
    return key.endswith("running_mean") or (key.endswith(".weight") and value.dim() == 1)


def draw(key: str, shape: tuple[int, ...], norms: set[str]) -> torch.Tensor:
    drawn = np.random.RandomState(zlib.crc32(key.encode())).randn(*shape)
    module, name = key.rpartition(".")[0] + ".", key.rpartition(".")[2]
    if name in ("num_batches_tracked", "queue_ptr"):
        return torch.zeros(shape, dtype=torch.int64)
    if name == "queue" or key.endswith("query_embed.weight"):
        drawn = drawn * 0.02
    elif module in norms:
        one = name in ("weight", "running_var")
        drawn = one + 0.1 * (abs(drawn) if name == "running_var" else drawn)
    elif len(shape) >= 2:
        drawn = drawn * np.sqrt(2 / np.prod(shape[1:]))
    else:
        drawn = drawn * 0.01
    return torch.tensor(drawn, dtype=torch.float32)
