"""A score for every image of a list, and the list split by it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from utils import dist
from utils.measure.confusion import predict, respond
from utils.run import Run


def image_scores(
    network: nn.Module, score: Callable[[Any, dict], torch.Tensor], loader, run: Run, title: str
) -> list[float]:
    """score(output, batch) -> [B] of every image, in the order of the data set, gathered over processes.

    The batch's tensors are on the network's device.
    """
    found: dict[int, float] = {}
    for batch, output in predict(partial(respond, network), network, loader, run, title):
        here = {name: values.to(run.device) for name, values in batch.items() if torch.is_tensor(values)}
        found |= dict(zip(batch["index"].tolist(), score(output, here).tolist(), strict=True))
    everywhere = {index: value for part in dist.gather(found) for index, value in part.items()}
    return [everywhere[index] for index in sorted(everywhere)]


def split_by_score(names: Sequence[str], scores: Sequence[float], proportion: float) -> tuple[list[str], list[str]]:
    """(low, high): ascending by score, ties in the given order; low takes int(proportion * n), or a count when >= 1.

    An image without a score (NaN: no object pixels) goes last; the official code sorts those arbitrarily.
    """
    pairs = sorted(zip(scores, names, strict=True), key=lambda pair: (math.isnan(pair[0]), pair[0]))
    ranked = [name for _, name in pairs]
    count = int(proportion) if proportion >= 1 else int(proportion * len(names))
    return ranked[:count], ranked[count:]
