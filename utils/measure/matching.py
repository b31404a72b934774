"""Matching of clusters to classes, given one confusion matrix."""

from typing import get_args

import numpy as np
import torch

from utils.config.common import MatchingRule
from utils.measure.metrics import as_array


def match_clusters(confusion: torch.Tensor | np.ndarray, num_known: int, rule: MatchingRule) -> np.ndarray:
    """Novel class 0..n-1 of each cluster, int64 [K]; -1 for a cluster that one-to-one matching leaves out.

    The IoU is over pixels of novel classes that are predicted as clusters, as in the official code.
    many_to_one   arg-max of IoU; ties and clusters without a pixel go to the first class
    one_to_one    the assignment with the largest sum of IoU
    official      one_to_one if K = n, many_to_one if K > n; undefined (ValueError) for K < n, as in the official code,
                  where the other two leave classes without a cluster
    """
    block = as_array(confusion)[num_known:, num_known:].astype(np.float64)  # [n, K]
    num_novel, num_clusters = block.shape
    if not num_novel:  # novel classes are unknown
        return np.full(num_clusters, -1, dtype=np.int64)
    if rule not in rules_for(num_clusters, num_novel):
        raise ValueError(f"{num_clusters} clusters cannot cover {num_novel} novel classes; use at least {num_novel}")
    return _assign(block, rule)


def rules_for(num_clusters: int, num_novel: int) -> tuple[MatchingRule, ...]:
    """The matching rules that are defined for these numbers of clusters and novel classes."""
    return ("many_to_one", "one_to_one") if num_clusters < num_novel else get_args(MatchingRule)


def match_all(confusion: torch.Tensor | np.ndarray, rule: MatchingRule = "official") -> np.ndarray:
    """Class 0..C-1 of each cluster of [C, K] counts, int64 [K]; background is matched like any class.

    For methods without labels (MaskContrast). Rules as in `match_clusters`, for any number of clusters.
    """
    return _assign(as_array(confusion).astype(np.float64), rule)


def _assign(block: np.ndarray, rule: MatchingRule) -> np.ndarray:
    """Class of each cluster by the IoU of float counts [classes, clusters]."""
    union = block.sum(1, keepdims=True) + block.sum(0, keepdims=True) - block
    overlap = np.divide(block, union, out=np.zeros_like(block), where=union > 0)
    num_classes, num_clusters = block.shape
    if rule == "one_to_one" or (rule == "official" and num_clusters == num_classes):
        from scipy.optimize import linear_sum_assignment  # imported here: a tenth of a command's start-up time

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
