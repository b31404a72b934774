"""Which class a cluster stands for, as a function of one confusion matrix."""

from typing import get_args

import numpy as np
import torch

from utils.config.common import MatchingRule
from utils.measure.metrics import as_array


def match_clusters(confusion: torch.Tensor | np.ndarray, num_known: int, rule: MatchingRule) -> np.ndarray:
    """Novel class 0..n-1 of each cluster, int64 [K]; -1 for a cluster left over by one-to-one matching.

    Only pixels of novel classes predicted as clusters count, and IoU is taken among them, as in the official code.
    many_to_one: arg-max of IoU, ties and clusters never seen go to the first class. one_to_one: the assignment with the
    largest sum of IoU. official: one_to_one when K equals n, many_to_one when K > n; the official code has no rule for
    K < n (ValueError), where the other two leave classes without a cluster.
    """
    block = as_array(confusion)[num_known:, num_known:].astype(np.float64)  # [n, K]
    num_novel, num_clusters = block.shape
    if not num_novel:  # nobody knows the novel classes
        return np.full(num_clusters, -1, dtype=np.int64)
    if rule not in rules_for(num_clusters, num_novel):
        raise ValueError(f"{num_clusters} clusters cannot cover {num_novel} novel classes; use at least {num_novel}")
    return _assign(block, rule)


def rules_for(num_clusters: int, num_novel: int) -> tuple[MatchingRule, ...]:
    """The rules that are defined for so many clusters and novel classes."""
    return ("many_to_one", "one_to_one") if num_clusters < num_novel else get_args(MatchingRule)


def match_all(confusion: torch.Tensor | np.ndarray, rule: MatchingRule = "official") -> np.ndarray:
    """Class 0..C-1 of each cluster of [C, K] counts, int64 [K]; background is a class and a cluster like any other.

    For what was learned without any label (MaskContrast). Rules and left-over clusters as in `match_clusters`; any
    number of clusters will do.
    """
    return _assign(as_array(confusion).astype(np.float64), rule)


def _assign(block: np.ndarray, rule: MatchingRule) -> np.ndarray:
    """Class of each cluster by the IoU of float counts [classes, clusters]."""
    union = block.sum(1, keepdims=True) + block.sum(0, keepdims=True) - block
    overlap = np.divide(block, union, out=np.zeros_like(block), where=union > 0)
    num_classes, num_clusters = block.shape
    if rule == "one_to_one" or (rule == "official" and num_clusters == num_classes):
        from scipy.optimize import linear_sum_assignment  # a tenth of what a command takes to start

        match = np.full(num_clusters, -1, dtype=np.int64)
        classes, clusters = linear_sum_assignment(overlap, maximize=True)
        match[clusters] = classes
        return match
    return overlap.argmax(0)


def apply_match(confusion: torch.Tensor | np.ndarray, match: np.ndarray, num_known: int) -> np.ndarray:
    """Merge cluster columns into class columns: [B+1+n, B+1+K] -> [B+1+n, B+1+n+1], the last for leftover clusters."""
    confusion = as_array(confusion)
    num_true = len(confusion)
    merged = np.zeros((num_true, num_true + 1), dtype=np.int64)
    merged[:, :num_known] = confusion[:, :num_known]
    for cluster, novel in enumerate(match):
        merged[:, num_known + novel if novel >= 0 else num_true] += confusion[:, num_known + cluster]
    return merged
