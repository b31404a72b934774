"""Labels and loss of PLOP (Douillard et al., CVPR 2021): pseudo-labels where the old network is sure, local POD.

B batch, D features, H W pixels, h w feature cells; K classes, background first; O of them are old, N = K - O new.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from utils.labels import IGNORE

BINS, OFFICIAL_BINS = 10_000, 100  # of the exact median, and of PLOP's


def local_pod(old: torch.Tensor, new: torch.Tensor, scales: Sequence[int] = (1, 2, 4)) -> torch.Tensor:
    """Distance of feature maps [B, D, h, w] by means over strips at several scales (PLOP, Douillard et al., CVPR 2021).

    Features are squared first. At scale s the map has s x s cells of floor(w / s) rows and columns; the mean of each
    cell over its columns and over its rows makes the embedding. Mean over the batch of the Euclidean distances.
    """
    parts = [strips(old.float().square(), scale) - strips(new.float().square(), scale) for scale in scales]
    return torch.cat([part.flatten(1) for part in parts], dim=1).norm(dim=1).mean()


def strips(features: torch.Tensor, scale: int) -> torch.Tensor:
    """Means over columns and over rows of every cell of a scale x scale grid, [B, 2 D side scale^2]."""
    side = features.shape[-1] // scale
    cells = features[..., : side * scale, : side * scale]
    batch, depth, _, _ = cells.shape
    cells = cells.reshape(batch, depth, scale, side, scale, side)
    return torch.cat([cells.mean(5).flatten(1), cells.mean(3).flatten(1)], dim=1)


def fold_new_classes(logits: torch.Tensor, num_old: int) -> torch.Tensor:
    """Logits [B, K, h, w] -> [B, O, h, w]: the new classes are added to background, where the old network saw them."""
    background = logits[:, :1] + logits[:, num_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:num_old]], dim=1)


def pod_loss(
    old: Sequence[torch.Tensor],
    new: Sequence[torch.Tensor],
    num_classes: int,
    num_new: int,
    factor: float = 0.01,
    last_factor: float = 0.0005,
) -> torch.Tensor:
    """Local POD over layers, the last of which are the low-resolution logits; times sqrt(K / N), mean over layers."""
    share = math.sqrt(num_classes / num_new)
    folded = [*new[:-1], fold_new_classes(new[-1], old[-1].shape[1])]
    factors = [factor] * (len(old) - 1) + [last_factor]
    losses = [weight * local_pod(a, b) for weight, a, b in zip(factors, old, folded, strict=True)]
    return share * torch.stack(losses).mean()


def old_class_entropy(old_logits: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Entropy of the old network's classes per pixel [B, H, W], scaled as in the official code of PLOP.

    It takes the mean over the O classes where the normalised entropy has the sum, and divides by ln K once more: values
    lie in [0, 1 / (O ln K)].
    """
    prob = old_logits.float().softmax(1)
    entropy = -(prob * (prob + 1e-8).log()).mean(1) / math.log(old_logits.shape[1] + 1e-8)
    return entropy / math.log(num_classes)


def trusted_label(
    label: torch.Tensor, old_logits: torch.Tensor, thresholds: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Old classes where the old network is sure, 255 in the rest of the background; and the sure share of it, [B].

    label int64 [B, H, W] in train ids, old_logits [B, O, H, W], thresholds [O] of `entropy_thresholds`.
    """
    num_old, old = old_logits.shape[1], old_logits.argmax(1)
    background = label < num_old
    sure = background & (old_class_entropy(old_logits, num_classes) < thresholds[old])
    share = sure.sum((1, 2)) / (background.sum((1, 2)) + 1e-6)
    return torch.where(sure, old, torch.where(background, IGNORE, label)), share


def value_ranges(num_old: int, num_classes: int) -> dict[int, float]:
    """Number of bins -> largest value, of the two histograms of `old_class_entropy`: for the exact median and PLOP's.

    Nearly all of PLOP's bins lie above the largest entropy.
    """
    return {BINS: 1 / (num_old * math.log(num_classes)), OFFICIAL_BINS: 1.0}


def background_entropies(label: torch.Tensor, old_logits: torch.Tensor, num_classes: int) -> dict[int, torch.Tensor]:
    """Both histograms of each old class over the background of a batch: number of bins -> int64 [O, bins].

    label [B, H, W], 0 for background; old_logits [B, O, H, W].
    """
    num_old, entropy = old_logits.shape[1], old_class_entropy(old_logits, num_classes)
    counts = {}
    for bins, most in value_ranges(num_old, num_classes).items():
        cell = old_logits.argmax(1) * bins + (entropy / most * bins).long().clamp(max=bins - 1)
        cell = torch.where(label == 0, cell + 1, 0)  # others go to bin 0, which is cut off
        counts[bins] = torch.bincount(cell.reshape(-1), minlength=num_old * bins + 1)[1:].view(num_old, bins)
    return counts


def thresholds_and_trust(
    counts: Mapping[int, np.ndarray], num_classes: int, rule: str, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """(threshold of each old class, share of its background below it), both [O], of summed `background_entropies`."""
    ranges = value_ranges(len(counts[BINS]), num_classes)
    used = OFFICIAL_BINS if rule == "official" else BINS
    thresholds = entropy_thresholds(counts[used], ranges[used], rule, floor)
    return thresholds, trusted_share(counts[BINS], ranges[BINS], thresholds)


def entropy_thresholds(histograms: np.ndarray, top: float, rule: str, floor: float) -> np.ndarray:
    """Threshold of each class, [num_old], from histograms [num_old, bins] of values in [0, top]; at least `floor`.

    PLOP's median; a class without pixels gets the floor.
    """
    median = official_median if rule == "official" else lambda histogram: exact_median(histogram, top)
    medians = [median(histogram) if histogram.any() else 0.0 for histogram in histograms]
    return np.maximum(np.nan_to_num(medians, nan=0.0, posinf=np.inf), floor)


def trusted_share(histograms: np.ndarray, top: float, thresholds: np.ndarray) -> np.ndarray:
    """Share of each class's values below its threshold, [num_old]; NaN for a class without values.

    histograms [num_old, bins] of values in [0, top], even within a bin.
    """
    bins = histograms.shape[1]
    edges, shares = np.linspace(0, top, bins + 1), []
    for counts, threshold in zip(histograms, thresholds, strict=True):
        below = np.concatenate([[0], np.cumsum(counts)])
        shares.append(np.interp(threshold, edges, below) / below[-1] if below[-1] else np.nan)
    return np.array(shares)


def official_median(histogram: np.ndarray, bins: int = 100) -> float:
    """Median of values in [0, 1] from their histogram, as the official code of PLOP has it.

    It adds the number of a bin, and not its count, to the running sum: with most values in the first bin that makes no
    difference; when no bin holds half of them the result is infinite.
    """
    half, running, place = histogram.sum() / 2, 0.0, 0
    for index in range(bins):
        lower = index / bins
        place = int(lower * bins)  # 28 for 29, as floats have it
        if running <= half <= running + histogram[place]:
            break
        if index < bins - 1:
            running += lower * bins
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(lower + np.float64(half - running) / np.float64(histogram[place]) / bins)


def exact_median(histogram: np.ndarray, top: float) -> float:
    """Median of values in [0, top] from a histogram with even bins, linear within its bin."""
    cumulative = np.cumsum(histogram)
    half = cumulative[-1] / 2
    index = int(np.searchsorted(cumulative, half))
    inside = (half - (cumulative[index] - histogram[index])) / max(histogram[index], 1)
    return float((index + inside) / len(histogram) * top)
