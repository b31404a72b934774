"""Evaluation of discovered classes: one joint histogram against boolean masks, as the official NCDSS code uses them.

The official way keeps all novel pixels, scans them once per pair of cluster and class to match, and then updates an IoU
meter class by class. Both ways get the same predictions and must return the same match and IoU. The second
forward pass over the validation set, which only the official way needs, is not counted.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --base 60 --novel 20 --clusters 40   # COCO-20i
"""

import argparse
import timeit

import torch
from scipy.optimize import linear_sum_assignment

from utils.labels import IGNORE
from utils.measure.matching import apply_match, match_clusters
from utils.measure.metrics import confusion_matrix, iou

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def random_batches(images: int, batch: int, size: int, num_pred: int, num_true: int) -> Batches:
    """Pairs (prediction, label) of [b, size, size] in blocks of 8 x 8 pixels, right half of the time, some ignored."""
    g = torch.Generator().manual_seed(0)
    cells = -(-size // 8)
    label = torch.randint(0, num_true, (images, cells, cells), generator=g)
    pred = torch.randint(0, num_pred, label.shape, generator=g)
    pred = torch.where(torch.rand(label.shape, generator=g) < 0.5, label, pred)
    label[torch.rand(label.shape, generator=g) < 0.05] = IGNORE
    pred, label = (x.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :size, :size] for x in (pred, label))
    return list(zip(pred.contiguous().split(batch), label.to(torch.uint8).contiguous().split(batch), strict=True))


def match_by_masks(batches: Batches, num_known: int, num_clusters: int, num_novel: int) -> torch.Tensor:
    """Class of each cluster [K]: IoU of every pair from boolean masks over all novel pixels."""
    kept = [(p >= num_known) & (t >= num_known) & (t != IGNORE) for p, t in batches]
    pred = torch.cat([p[k] for (p, _), k in zip(batches, kept, strict=True)]) - num_known
    label = torch.cat([t[k] for (_, t), k in zip(batches, kept, strict=True)]) - num_known
    overlap = torch.zeros(num_novel, num_clusters, dtype=torch.float64)
    for c in range(num_clusters):
        for n in range(num_novel):
            hit = ((pred == c) & (label == n)).sum().item()
            false = ((pred == c) & (label != n)).sum().item()
            missed = ((pred != c) & (label == n)).sum().item()
            overlap[n, c] = hit / max(hit + false + missed, 1e-8)
    if num_clusters == num_novel:
        classes, clusters = linear_sum_assignment(overlap.numpy(), maximize=True)
        return torch.from_numpy(classes[clusters.argsort()])
    return overlap.argmax(0)


def iou_by_masks(batches: Batches, match: torch.Tensor, num_known: int, num_true: int) -> torch.Tensor:
    """IoU of each class [C] from a meter that updates hits, false alarms and misses class by class."""
    counts = torch.zeros(3, num_true, dtype=torch.float64)
    table = torch.cat([torch.arange(num_known), num_known + match])
    for pred, label in batches:
        merged, valid = table[pred], label != IGNORE
        for c in range(num_true):
            predicted, true = merged == c, label == c
            counts[0, c] += (predicted & true & valid).sum().item()
            counts[1, c] += (predicted & ~true & valid).sum().item()
            counts[2, c] += (~predicted & true & valid).sum().item()
    return counts[0] / counts.sum(0).clamp(min=1e-8)


def joint_histogram(batches: Batches, num_pred: int, num_true: int) -> torch.Tensor:
    return sum(confusion_matrix(pred, label, num_pred, num_true) for pred, label in batches)


def scores_from(matrix: torch.Tensor, num_known: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(match, IoU) of a confusion matrix."""
    match = match_clusters(matrix, num_known, "official")
    return torch.from_numpy(match), torch.from_numpy(iou(apply_match(matrix, match, num_known))).nan_to_num(0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"images": 16, "batch": 8, "size": 512, "base": 15, "novel": 5, "clusters": 10, "repeats": 3, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    o = parser.parse_args(argv)
    torch.set_num_threads(o.threads)
    num_known, num_pred, num_true = 1 + o.base, 1 + o.base + o.clusters, 1 + o.base + o.novel
    batches = random_batches(o.images, o.batch, o.size, num_pred, num_true)

    def seconds(function, *arguments) -> float:
        return min(timeit.repeat(lambda: function(*arguments), number=1, repeat=o.repeats))

    match = match_by_masks(batches, num_known, o.clusters, o.novel)
    matrix = joint_histogram(batches, num_pred, num_true)
    our_match, our_iou = scores_from(matrix, num_known)
    assert torch.equal(match, our_match), "the two ways disagree on the match"
    torch.testing.assert_close(iou_by_masks(batches, match, num_known, num_true), our_iou)

    matching = seconds(match_by_masks, batches, num_known, o.clusters, o.novel)
    meter = seconds(iou_by_masks, batches, match, num_known, num_true)
    histogram = seconds(joint_histogram, batches, num_pred, num_true)
    rest = seconds(scores_from, matrix, num_known)
    print(f"{o.images} images of {o.size} x {o.size}, {o.threads} thread(s), best of {o.repeats}")
    print(f"{'':34}{'masks, s':>12}{'histogram, s':>14}{'ratio':>8}")
    for title, theirs, ours in (
        (f"match {o.clusters} clusters to {o.novel} classes", matching, histogram + rest),
        (f"IoU of {num_true} classes", meter, histogram + rest),
        ("both (one histogram serves both)", matching + meter, histogram + rest),
    ):
        print(f"{title:34}{theirs:12.4f}{ours:14.4f}{theirs / ours:8.1f}")


if __name__ == "__main__":
    main()
