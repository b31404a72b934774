"""The meaning of the rows and columns of a confusion matrix, and the metrics computed from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from utils.config.common import Absent, MatchingRule
from utils.measure.matching import apply_match, match_clusters, rules_for
from utils.measure.metrics import as_array, summarize

Groups = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Spec:
    """Rows are true classes, columns network outputs. If `num_known` is given, outputs from there on are clusters."""

    names: Sequence[str]  # of the rows
    num_outputs: int  # columns
    groups: Groups = field(default_factory=dict)  # name -> rows of `<name>_miou`, `<name>_accuracy`; two: harmonic mean
    unions: Groups = field(default_factory=dict)  # further groups, which may overlap; no harmonic mean
    absent: Absent = "zero"
    num_known: int | None = None
    match: MatchingRule = "official"
    partial: bool = False  # clusters may be fewer than classes: one to one then, many to one beyond
    complete: bool = True  # with `partial`: the last step, so classes without a cluster count

    @property
    def num_true(self) -> int:
        return len(self.names)

    @property
    def rules(self) -> tuple[MatchingRule, ...]:
        """The matching rules to report, that of the spec first; empty if all rules give the same result."""
        if self.num_known is None or self.partial or self.num_known == self.num_true:
            return ()
        defined = rules_for(self.num_outputs - self.num_known, self.num_true - self.num_known)
        return tuple(dict.fromkeys((self.match, *(rule for rule in ("official", "one_to_one") if rule in defined))))


def confusion_metrics(
    matrix: torch.Tensor | np.ndarray,
    spec: Spec,
    match_on: torch.Tensor | np.ndarray | None = None,
    rule: MatchingRule | None = None,
) -> dict[str, Any]:
    """Metrics of int64 [num_true, num_outputs], see `summarize`; with clusters also `match`: [cluster, class] pairs.

    With absent="labelled" also `<group>_miou_strict`, over all classes of the group that occur or are predicted.
    Clusters are matched on `match_on` when given (the matrix of the same pass at another resolution), by `rule` or the
    spec's. Both numbers of a pair count from 0, classes those behind the known ones; -1 for a cluster without class.
    """
    total = as_array(matrix)
    if spec.num_known is None:
        return _summarized(total, spec)
    on, known = total if match_on is None else as_array(match_on), spec.num_known
    if spec.partial:
        match = match_clusters(on, known, "one_to_one" if total.shape[1] <= spec.num_true else "many_to_one")
        square, spec = _found(apply_match(total, match, known), match, spec, known)
    else:
        match = match_clusters(on, known, rule or spec.match)
        square = apply_match(total, match, known)
    return _summarized(square, spec) | {"match": [[cluster, int(number)] for cluster, number in enumerate(match)]}


def _found(square: np.ndarray, match: np.ndarray, spec: Spec, known: int) -> tuple[np.ndarray, Spec]:
    """Before the last step, leaves out classes without a cluster and their pixels, like classes of later steps."""
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
        found = summarize(square, list(spec.names), {name: rows}, spec.absent)
        metrics |= {key: found[key] for key in (f"{name}_miou", f"{name}_accuracy", f"{name}_pixel_accuracy")}
    if spec.absent == "labelled":  # also counts classes that are predicted but not labelled
        strict = summarize(square, list(spec.names), spec.groups, "skip")
        metrics |= {f"{key}_strict": value for key, value in strict.items() if key.endswith("_miou")}
    return metrics
