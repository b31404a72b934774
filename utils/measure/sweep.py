"""Calibrated bias: metrics as a function of a constant gamma that is subtracted from the scores of seen classes.

C classes, G gammas, B images, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from utils import dist
from utils.config.common import Absent
from utils.labels import ignore_of
from utils.measure.metrics import summarize

# in the unit of the scores; dense near 0 for cosines, wide for logits
GAMMAS = tuple((0.05 * np.sinh(np.arange(-60, 61) * (7.6 / 60))).tolist())


@dataclass
class Sweep:
    """Counts pixels by the lead of the best seen class over the best unseen one, in one pass for all gammas.

    A pixel goes to its best unseen class if gamma exceeds the lead.
    """

    seen: Sequence[int]
    unseen: Sequence[int]
    gammas: Sequence[float] = GAMMAS
    absent: Absent = "zero"
    counts: torch.Tensor | None = field(default=None, init=False)  # int64 [2, G + 1, C, C]: best seen, best unseen

    @property
    def num_classes(self) -> int:
        return len(self.seen) + len(self.unseen)

    def leads(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(lead, best seen class, best unseen class), each [B, H, W], of scores [B, C, H, W]."""
        best = [self._best(scores, classes) for classes in (self.seen, self.unseen)]
        return best[0][0] - best[1][0], best[0][1], best[1][1]

    def _best(self, scores: torch.Tensor, classes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        index = _on_device(tuple(classes), scores.device)
        score, place = scores[:, index].float().max(1)
        return score, index[place]

    def count(self, found: tuple[torch.Tensor, ...], label: torch.Tensor) -> None:
        """Adds a batch: the result of `leads`, and labels [B, H, W]."""
        lead, *best = found
        cells, bins = self.num_classes**2, len(self.gammas) + 1
        edges = _on_device(tuple(self.gammas), lead.device).to(lead.dtype)
        place, valid = torch.bucketize(lead, edges, right=True), label != ignore_of(label)
        row = torch.where(valid, label, 0).long() + self.num_classes * place
        counted = [
            torch.bincount((row * self.num_classes + column)[valid], minlength=bins * cells).view(bins, -1)
            for column in best
        ]
        now = torch.stack(counted).view(2, bins, self.num_classes, self.num_classes)
        self.counts = now if self.counts is None else self.counts + now

    def confusions(self) -> np.ndarray:
        """int64 [G, C, C]: the confusion matrix at each gamma, summed over processes."""
        shape = (2, len(self.gammas) + 1, self.num_classes, self.num_classes)
        counts = torch.zeros(shape, dtype=torch.int64) if self.counts is None else self.counts
        seen, unseen = dist.sum_(counts.clone()).cpu().numpy()
        # bin j holds leads in [gamma_(j-1), gamma_j): below gamma_j, so that they fall to the unseen class there
        return unseen.cumsum(0)[:-1] + (seen.sum(0) - seen.cumsum(0)[:-1])

    def curve(self, names: Sequence[str]) -> dict[str, Any]:
        """Seen, unseen and harmonic mIoU at each gamma, area under unseen over seen mIoU, best harmonic mIoU.

        The best gamma is chosen on the validation labels of unseen classes: an upper bound, not a result.
        """
        groups = {"seen": self.seen, "unseen": self.unseen}
        points = [summarize(matrix, list(names), groups, self.absent) for matrix in self.confusions()]
        keys = ("seen_miou", "unseen_miou", "harmonic_miou")
        curve: dict[str, Any] = {key: [point[key] or 0.0 for point in points] for key in keys}
        best = int(np.argmax(curve["harmonic_miou"]))
        return {
            "gamma": list(self.gammas),
            **curve,
            "area": area(curve["seen_miou"], curve["unseen_miou"]),
            "best_gamma": self.gammas[best],
            "best_harmonic_miou": curve["harmonic_miou"][best],
        }


@lru_cache(maxsize=8)
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A tensor of values, copied to the device once."""
    return torch.tensor(values, device=device)


def area(x: Sequence[float], y: Sequence[float]) -> float:
    """Area under the curve through the points (x, y), by trapezoids, down to x = 0."""
    order = np.argsort(x, kind="stable")
    xs, ys = np.asarray(x)[order], np.asarray(y)[order]
    xs, ys = np.concatenate([[0.0], xs]), np.concatenate([[ys[0]], ys])
    return float(((ys[1:] + ys[:-1]) * np.diff(xs)).sum() / 2)
