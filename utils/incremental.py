"""Labels, thresholds and metrics of class-incremental segmentation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import checkpoint, dist
from utils.config.ssul import StepTraining
from utils.measure.evaluation import predict
from utils.measure.metrics import Absent, apply_match, confusion_matrix, match_clusters, summarize
from utils.report import charts
from utils.run import Run

IGNORE = 255
CURVES = {  # name -> (figure, colour)
    "all classes": ("miou", "#1f2933"),
    "classes of step 0": ("old_miou", "#2f6fb0"),
    "later classes": ("new_miou", "#d9822b"),
}


def add_unknown(label: torch.Tensor, salient: torch.Tensor | None) -> torch.Tensor:
    """Train ids [B, H, W] as channels [unknown, background, classes ...]: all move by one, 255 stays.

    Salient background becomes unknown; without a saliency map [B, H, W] all of it, as on ADE20K.
    """
    label = label.long()
    moved = torch.where(label == IGNORE, IGNORE, label + 1)
    background = label == 0
    return torch.where(background if salient is None else background & (salient > 0), 0, moved)


def pseudo_label(label: torch.Tensor, scores: torch.Tensor, threshold: float, last_vague: int) -> torch.Tensor:
    """Unknown and background pixels take the old class of the previous network where it is sure (SSUL, eq. 4).

    label int64 [B, H, W] in channel numbers, scores [B, C, H, W] of the previous channels. `last_vague` is the last
    channel that is no class: background, 1 with the unknown channel and 0 without.
    """
    confidence, old = scores.max(1)
    sure = (label <= last_vague) & (old > last_vague) & (confidence >= threshold)
    return torch.where(sure, old, label)


def class_scores(logits: torch.Tensor, loss: str) -> torch.Tensor:
    """Score of each channel: sigmoid of networks trained with binary cross-entropy, else softmax."""
    return logits.float().sigmoid() if loss == "bce" else logits.float().softmax(1)


def predicted_ids(logits: torch.Tensor, unknown: bool, loss: str) -> torch.Tensor:
    """Train ids [B, H, W]: the unknown score counts for background."""
    scores = class_scores(logits, loss)
    if unknown:
        scores = torch.cat([scores[:, :1] + scores[:, 1:2], scores[:, 2:]], dim=1)
    return scores.argmax(1)


@dataclass(frozen=True)
class Outcome:
    """What the network of a step is measured by: true classes as rows, its outputs as columns."""

    names: list[str]  # of the rows; pixels of further classes belong to later steps
    num_seen: int  # outputs, the unknown one merged into background
    num_first: int  # classes of step 0 with background
    clusters: bool = False  # outputs from num_first on are clusters
    complete: bool = True  # no step follows


def measure(model, loader, run: Run, outcome: Outcome, *, first: int | None = None, **options) -> dict[str, Any]:
    """Metrics over a loader; `new` are the classes behind step 0, or those from train id `first` on."""
    matrix, absent = step_confusion(model, loader, run, outcome, **options), run.cfg.evaluation.absent
    if outcome.clusters:
        return cluster_metrics(matrix, outcome.names, outcome.num_first, absent, outcome.complete)
    return step_metrics(matrix, outcome.names, outcome.num_first if first is None else first, absent)


def step_confusion(
    model, loader, run: Run, outcome: Outcome, *, unknown: bool, loss: str, title: str, keep: Callable | None = None
) -> torch.Tensor:
    """int64 [true classes, outputs] over a loader, summed over processes.

    Pixels of classes of later steps are ignored or background, by `evaluation.later`. keep(batch, train ids) gets the
    predictions.
    """
    num_true, num_seen = len(outcome.names), outcome.num_seen
    total = torch.zeros(num_true, num_seen, dtype=torch.int64, device=run.device)
    later = IGNORE if run.cfg.evaluation.later == "ignore" else 0
    for batch, logits in predict(lambda x: model(model.normalize(x)), model, loader, run, title):
        label, predicted = batch["label"].to(run.device), predicted_ids(logits, unknown, loss)
        label = torch.where((label >= num_true) & (label != IGNORE), later, label)
        total += confusion_matrix(predicted, label, num_seen, num_true)
        if keep:
            keep(batch, predicted)
    return dist.sum_(total)


def entropy_thresholds(histograms: np.ndarray, top: float, rule: str, floor: float) -> np.ndarray:
    """Threshold of each class, [num_old], from histograms [num_old, bins] of values in [0, top]; at least `floor`.

    PLOP's median; a class without pixels gets the floor.
    """
    median = official_median if rule == "official" else lambda histogram: exact_median(histogram, top)
    medians = [median(histogram) if histogram.any() else 0.0 for histogram in histograms]
    return np.maximum(np.nan_to_num(medians, nan=0.0, posinf=np.inf), floor)


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


def step_metrics(
    matrix: torch.Tensor | np.ndarray, names: list[str], num_first: int, absent: Absent = "zero"
) -> dict[str, Any]:
    """Metrics of int64 [seen, seen + extra]: `old` are the first classes with background, `new` all later ones.

    foreground_miou leaves background out, as some published ADE20K figures do.
    """
    seen = len(names)
    groups = {"old": list(range(num_first)), "new": list(range(num_first, seen))}
    metrics = summarize(matrix, names, {name: ids for name, ids in groups.items() if ids}, absent)
    foreground = summarize(matrix, names, {"foreground": list(range(1, seen))}, absent)["foreground_miou"]
    return metrics | {"foreground_miou": foreground}


def cluster_metrics(
    matrix: torch.Tensor, names: list[str], num_first: int, absent: Absent, complete: bool
) -> dict[str, Any]:
    """Metrics of int64 [true classes, seen outputs] whose outputs from num_first on are clusters.

    Clusters are matched to the true later classes: one to one up to their number, many to one beyond. As long as
    clusters are to come, classes without one are left out with their pixels, as those of later steps are.
    """
    total = matrix.cpu().numpy()
    few = total.shape[1] <= len(names)
    match = match_clusters(total, num_first, "one_to_one" if few else "many_to_one", partial=True)
    found = range(len(names) - num_first) if complete else sorted({*match} - {-1})
    kept = [*range(num_first), *(num_first + int(number) for number in found)]
    square = apply_match(total, match, num_first)[np.ix_(kept, [*kept, len(names)])]
    pairs = [[int(cluster), int(number)] for cluster, number in enumerate(match)]
    return step_metrics(square, [names[number] for number in kept], num_first, absent) | {"match": pairs}


def step_settings(settings: StepTraining, select: str, images: int) -> StepTraining:
    """Training of a step: full passes over its images, validated every hundredth of the iterations, or every 100.

    Whichever is rarer; select="last" validates at the end only.
    """
    length = settings.iters_per_epoch or max(1, images // settings.batch_size)
    total = settings.epochs * length
    every = total if select == "last" else settings.eval_steps or max(100, total // 100)
    return settings.model_copy(update={"iters_per_epoch": length, "eval_steps": every})


def write_summary(metrics: list[dict], folder: Path) -> None:
    """summary.json: the last step, means over steps; curve.svg: what is learned and forgotten along the task."""
    curves = {
        name: [(m["step"], m[key]) for m in metrics if m.get(key) is not None] for name, (key, _) in CURVES.items()
    }
    colors = {name: color for name, (_, color) in CURVES.items()}
    drawn = charts.curves(curves, colors, "step", percent=True, width=540) if len(metrics) > 1 else ""
    checkpoint.write_text(folder / "curve.svg", drawn)
    means = {CURVES[name][0]: float(np.mean([y for _, y in points])) for name, points in curves.items() if points}
    checkpoint.write_json(folder / "summary.json", {"last": metrics[-1], "mean_over_steps": means})
