"""What a confusion matrix counts, and every metric of every system that follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from utils.config.common import Absent, MatchingRule
from utils.measure.matching import apply_match, match_clusters
from utils.measure.metrics import as_array, group_accuracies, summarize

Groups = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Spec:
    """Rows are true classes, columns outputs of a network; outputs from `num_known` on are clusters, if it is given."""

    names: Sequence[str]  # of the rows
    num_outputs: int  # columns
    groups: Groups = field(default_factory=dict)  # name -> rows of `<name>_miou`; two of them have a harmonic mean
    unions: Groups = field(default_factory=dict)  # the same for groups that overlap those, without such a mean
    absent: Absent = "zero"
    num_known: int | None = None
    match: MatchingRule = "official"
    partial: bool = False  # clusters may be fewer than classes: one to one then, many to one beyond
    accuracies: bool = False  # of each group, too; classes without a pixel count by `absent` there
    complete: bool = True  # with `partial`: no cluster is to come, so that a class without one counts

    @property
    def num_true(self) -> int:
        return len(self.names)


def confusion_metrics(
    matrix: torch.Tensor | np.ndarray,
    spec: Spec,
    match_on: torch.Tensor | np.ndarray | None = None,
    rule: MatchingRule | None = None,
) -> dict[str, Any]:
    """Metrics of int64 [num_true, num_outputs], see `summarize`; with clusters also `match`: [cluster, class] pairs.

    Clusters are matched on `match_on` when given (the matrix of the same pass at another resolution), by `rule` or the
    spec's. Both numbers of a pair count from 0, classes those behind the known ones; -1 for a cluster without class.
    """
    total = as_array(matrix)
    if spec.num_known is None:
        return _summarized(total, spec)
    on, known = total if match_on is None else as_array(match_on), spec.num_known
    if spec.partial:
        match = match_clusters(on, known, "one_to_one" if total.shape[1] <= spec.num_true else "many_to_one", True)
        square, spec = _found(apply_match(total, match, known), match, spec, known)
    else:
        match = match_clusters(on, known, rule or spec.match)
        square = apply_match(total, match, known)
    return _summarized(square, spec) | {"match": [[cluster, int(number)] for cluster, number in enumerate(match)]}


def _found(square: np.ndarray, match: np.ndarray, spec: Spec, known: int) -> tuple[np.ndarray, Spec]:
    """As long as clusters are to come, classes without one are left out with their pixels, as those of later steps."""
    if spec.complete:
        return square, spec
    kept = [*range(known), *sorted(known + number for number in {*match.tolist()} - {-1})]
    place = {row: index for index, row in enumerate(kept)}

    def moved(groups: Groups) -> dict[str, list[int]]:
        return {name: [place[row] for row in rows if row in place] for name, rows in groups.items()}

    names, groups = [spec.names[row] for row in kept], {name: rows for name, rows in moved(spec.groups).items() if rows}
    few = replace(spec, names=names, groups=groups, unions=moved(spec.unions))
    return square[np.ix_(kept, [*kept, spec.num_true])], few


def _summarized(square: np.ndarray, spec: Spec) -> dict[str, Any]:
    metrics = summarize(square, list(spec.names), spec.groups, spec.absent)
    for name, rows in spec.unions.items():
        metrics |= {f"{name}_miou": summarize(square, list(spec.names), {"x": rows}, spec.absent)["x_miou"]}
    if spec.accuracies:
        metrics |= group_accuracies(square, spec.groups, spec.absent)
    return metrics
