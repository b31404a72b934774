"""Benchmarks of `python -m benchmarks`: the released implementation and ours, on the same inputs of paper size.

losses      forward and backward, with the memory they take
decisions   maps of classes, entropies, prototypes
evaluation  confusion matrices, IoU, matching of clusters
samples     from a file to a training sample; reading a checkpoint
networks    parts of training steps

Each file holds the released way in a few lines of our own, our call, and the rows that compare them. Rows check that
both give the same before they are timed, where the draws of both ways are the same.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.rows import decisions, evaluation, losses, networks, samples
from benchmarks.rows.row import Row

memory = losses.memory


def rows(folder: Path, quick: bool = False) -> Iterator[Row]:
    """All rows. Files are written to `folder`. `quick`: inputs that take no time, for the test."""
    torch.manual_seed(0)
    yield from losses.rows(quick)
    yield from decisions.rows(quick)
    yield from evaluation.rows(quick)
    yield from samples.rows(folder, quick)
    yield from networks.rows(quick)
