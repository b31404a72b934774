"""Scores of the images of a list, and the split of the list by score (EUMS: clean and unclean images)."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from utils import dist
from utils.checkpoint import write_json, write_list
from utils.measure.confusion import predict
from utils.run import Run


def image_scores(
    network: nn.Module, score: Callable[[torch.Tensor, dict], torch.Tensor], loader, run: Run, title: str
) -> list[float]:
    """score(logits, batch) -> [B] of every image, in the order of the data set, gathered over processes.

    logits [B, C, h, w] are at feature resolution; the batch's tensors are on the network's device.
    """
    found: dict[int, float] = {}

    def forward(images: torch.Tensor) -> torch.Tensor:
        return network.cell_logits(network.normalize(images))  # type: ignore[operator]  # attributes of a module

    for batch, logits in predict(forward, network, loader, run, title):
        here = {n: v.to(run.device, non_blocking=True) for n, v in batch.items() if torch.is_tensor(v) and n != "image"}
        found |= dict(zip(batch["index"].tolist(), score(logits, here).tolist(), strict=True))
    everywhere = {index: value for part in dist.gather(found) for index, value in part.items()}
    return [everywhere[index] for index in sorted(everywhere)]


def split_by_score(
    names: Sequence[str], scores: Sequence[float], proportion: float, groups: Sequence[int] | None = None
) -> tuple[list[str], list[str]]:
    """(low, high): ascending by score, ties in the given order; low takes int(proportion * n), or a count when >= 1.

    An image without object pixels has the score NaN and goes last; the official code sorts those arbitrarily. With
    `groups` (the clusters of the images), the relative rank within its group replaces the score of an image, so that
    low takes the same share of every group.
    """
    if groups is not None:
        scores = _ranks_within(groups, scores)
    pairs = sorted(zip(scores, names, strict=True), key=lambda pair: (math.isnan(pair[0]), pair[0]))
    ranked = [name for _, name in pairs]
    count = int(proportion) if proportion >= 1 else int(proportion * len(names))
    return ranked[:count], ranked[count:]


def write_split(
    folder: Path, easy: Sequence[str], hard: Sequence[str], names: Sequence[str], scores: Sequence[float]
) -> None:
    """Writes easy_split.txt, hard_split.txt and entropy.json ({image: score, null for NaN})."""
    if not dist.is_main():
        return
    write_list(folder / "easy_split.txt", easy)
    write_list(folder / "hard_split.txt", hard)
    values = {name: None if math.isnan(score) else score for name, score in zip(names, scores, strict=True)}
    write_json(folder / "entropy.json", values)


def _ranks_within(groups: Sequence[int], scores: Sequence[float]) -> list[float]:
    """(rank + 1/2) / group size, for every score; NaN stays NaN."""
    ranks = [math.nan] * len(scores)
    for group in set(groups):
        members = [i for i, other in enumerate(groups) if other == group and not math.isnan(scores[i])]
        members.sort(key=lambda i: scores[i])
        for rank, i in enumerate(members):
            ranks[i] = (rank + 0.5) / len(members)
    return ranks
