"""PLOP (Douillard et al., CVPR 2021): pseudo-labels where the old network is certain, and the local POD distillation.

B images, D features, H W pixels, h w feature cells; K classes, background first; O of them are old, N = K - O new.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch

from utils.labels import IGNORE

BINS, OFFICIAL_BINS = 10_000, 100  # histogram bins: exact median, median of the released code


def local_pod_plain(old: torch.Tensor, new: torch.Tensor, scales: Sequence[int] = (1, 2, 4)) -> torch.Tensor:
    """|| Psi(old) - Psi(new) || averaged over the batch (eq. 5), in the dtype of the features [B, D, h, w].

    Psi concatenates, over scales s (eq. 4) and the s x s cells of floor(w / s) rows and columns (eq. 3), the means of a
    cell over its columns and over its rows (eq. 1). The released code squares the features first.
    """

    def embedding(x: torch.Tensor) -> torch.Tensor:
        parts = []
        for scale in scales:
            side = x.shape[-1] // scale
            for i, j in product(range(scale), repeat=2):
                cell = x[..., i * side : (i + 1) * side, j * side : (j + 1) * side]
                parts += [cell.mean(3).flatten(1), cell.mean(2).flatten(1)]
        return torch.cat(parts, 1)

    return (embedding(old.square()) - embedding(new.square())).norm(dim=1).mean()


def local_pod(old: torch.Tensor, new: torch.Tensor, scales: Sequence[int] = (1, 2, 4)) -> torch.Tensor:
    """`local_pod_plain` in float32, all cells of a scale at once. old, new [B, D, h, w], h = w."""
    parts = [strips(old.float().square(), scale) - strips(new.float().square(), scale) for scale in scales]
    return torch.cat([part.flatten(1) for part in parts], dim=1).norm(dim=1).mean()


def strips(features: torch.Tensor, scale: int) -> torch.Tensor:
    """Means over the columns and over the rows of every cell of a scale x scale grid.

    features [B, D, h, w], h = w -> [B, 2 D side scale^2] with side = floor(w / scale).
    """
    side = features.shape[-1] // scale
    cells = features[..., : side * scale, : side * scale]
    batch, depth, _, _ = cells.shape
    cells = cells.reshape(batch, depth, scale, side, scale, side)
    return torch.cat([cells.mean(5).flatten(1), cells.mean(3).flatten(1)], dim=1)


def fold_new_classes(logits: torch.Tensor, num_old: int) -> torch.Tensor:
    """Adds the logits of the new classes to background, which is what they were for the old network.

    logits [B, K, h, w] -> [B, O, h, w], O = num_old.
    """
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
    """sqrt(K / N) times the mean over layers of factor * local POD (eq. 5), weighted as in the released code.

    `old` and `new` list the features of both networks, [B, D, h, w] each; their last entries are the logits at feature
    resolution, [B, O, h, w] and [B, K, h, w], weighted by `last_factor`.
    """
    share = math.sqrt(num_classes / num_new)
    folded = [*new[:-1], fold_new_classes(new[-1], old[-1].shape[1])]
    factors = [factor] * (len(old) - 1) + [last_factor]
    losses = [weight * local_pod(a, b) for weight, a, b in zip(factors, old, folded, strict=True)]
    return share * torch.stack(losses).mean()


def old_class_entropy(old_logits: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Per-pixel entropy u of the old network's prediction, the u of eq. 7, scaled as in the released code.

    That code averages p log p over the O old classes where the normalised entropy sums, and divides by ln K once more:
    u lies in [0, 1 / (O ln K)]. old_logits [B, O, H, W] -> [B, H, W].
    """
    prob = old_logits.float().softmax(1)
    entropy = -(prob * (prob + 1e-8).log()).mean(1) / math.log(old_logits.shape[1] + 1e-8)
    return entropy / math.log(num_classes)


def trusted_label(
    label: torch.Tensor, old_logits: torch.Tensor, thresholds: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pseudo-label of eq. 7: in background, the old network's class k where u < tau_k, else 255.

    Also returns the share of the background that got a class, [B].

    label int64 [B, H, W] in train ids, old_logits [B, O, H, W], thresholds tau [O] of `entropy_thresholds`.
    """
    num_old, old = old_logits.shape[1], old_logits.argmax(1)
    background = label < num_old
    sure = background & (old_class_entropy(old_logits, num_classes) < thresholds[old])
    share = sure.sum((1, 2)) / (background.sum((1, 2)) + 1e-6)
    return torch.where(sure, old, torch.where(background, IGNORE, label)), share


def value_ranges(num_old: int, num_classes: int) -> dict[int, float]:
    """Number of bins -> upper end of both histograms of `old_class_entropy`.

    The exact median uses BINS up to the largest possible entropy. The released code uses OFFICIAL_BINS up to 1, nearly
    all of which lie above the largest possible entropy.
    """
    return {BINS: 1 / (num_old * math.log(num_classes)), OFFICIAL_BINS: 1.0}


def background_entropies(label: torch.Tensor, old_logits: torch.Tensor, num_classes: int) -> dict[int, torch.Tensor]:
    """Histograms of `old_class_entropy` over the background pixels of a batch, by predicted old class.

    label [B, H, W], 0 for background; old_logits [B, O, H, W]. Returns number of bins -> int64 [O, bins].
    """
    num_old, entropy = old_logits.shape[1], old_class_entropy(old_logits, num_classes)
    counts = {}
    for bins, most in value_ranges(num_old, num_classes).items():
        cell = old_logits.argmax(1) * bins + (entropy / most * bins).long().clamp(max=bins - 1)
        cell = torch.where(label == 0, cell + 1, 0)  # other pixels go to bin 0, which is dropped
        counts[bins] = torch.bincount(cell.reshape(-1), minlength=num_old * bins + 1)[1:].view(num_old, bins)
    return counts


def thresholds_and_trust(
    counts: Mapping[int, np.ndarray], num_classes: int, rule: str, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """(threshold of each old class, share of its background pixels below it), both [O].

    counts: `background_entropies` summed over the training images. `rule` is "exact" or "official".
    """
    ranges = value_ranges(len(counts[BINS]), num_classes)
    used = OFFICIAL_BINS if rule == "official" else BINS
    thresholds = entropy_thresholds(counts[used], ranges[used], rule, floor)
    return thresholds, trusted_share(counts[BINS], ranges[BINS], thresholds)


def entropy_thresholds(histograms: np.ndarray, top: float, rule: str, floor: float) -> np.ndarray:
    """tau of eq. 7: the median entropy of each old class, at least `floor`; `floor` for a class without pixels.

    histograms [O, bins] of values in [0, top] -> [O].
    """
    median = official_median if rule == "official" else lambda histogram: exact_median(histogram, top)
    medians = [median(histogram) if histogram.any() else 0.0 for histogram in histograms]
    return np.maximum(np.nan_to_num(medians, nan=0.0, posinf=np.inf), floor)


def trusted_share(histograms: np.ndarray, top: float, thresholds: np.ndarray) -> np.ndarray:
    """Share of each class's values below its threshold, [O]; NaN for a class without values.

    histograms [O, bins] of values in [0, top], taken as uniform within a bin.
    """
    bins = histograms.shape[1]
    edges, shares = np.linspace(0, top, bins + 1), []
    for counts, threshold in zip(histograms, thresholds, strict=True):
        below = np.concatenate([[0], np.cumsum(counts)])
        shares.append(np.interp(threshold, edges, below) / below[-1] if below[-1] else np.nan)
    return np.array(shares)


def official_median(histogram: np.ndarray, bins: int = 100) -> float:
    """Median of values in [0, 1] from their histogram [bins], as in the released code of PLOP.

    That code adds the number of a bin instead of its count to the running sum. With most values in the first bin this
    makes no difference; if no bin holds half of the values the result is infinite.
    """
    half, running, place = histogram.sum() / 2, 0.0, 0
    for index in range(bins):
        lower = index / bins
        place = int(lower * bins)  # 28 for 29: floating-point rounding of the released code
        if running <= half <= running + histogram[place]:
            break
        if index < bins - 1:
            running += lower * bins
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(lower + np.float64(half - running) / np.float64(histogram[place]) / bins)


def exact_median(histogram: np.ndarray, top: float) -> float:
    """Median of values in [0, top] from a histogram [bins] with bins of equal width, linear within its bin."""
    cumulative = np.cumsum(histogram)
    half = cumulative[-1] / 2
    index = int(np.searchsorted(cumulative, half))
    inside = (half - (cumulative[index] - histogram[index])) / max(histogram[index], 1)
    return float((index + inside) / len(histogram) * top)
