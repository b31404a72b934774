"""Class-incremental steps whose later classes are the clusters of a pseudo-label folder (setting=discovered).

Step 0 trains on the labelled images of the folder's base.txt. Each later step learns some clusters from the images of
its novel.txt, without true labels. No published code combines class discovery and class-incremental learning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.classes import ClassGroups
from data.label_map import LabelMap
from data.layouts import Sample
from data.lists import Presence, values_of
from data.pseudo_labels import CLUSTERED, clustered_labels
from data.source import DataContext
from utils.checkpoint import read_list
from utils.config.incremental import IncrementalConfig
from utils.errors import UserError
from utils.labels import IGNORE


@dataclass(frozen=True)
class ClusterTask:
    """A task with clusters: cluster k is class number len(classes) + k, and value num_known + k in label files."""

    folder: Path
    truth: ClassGroups  # the true classes
    task: ClassGroups  # clusters replace the classes of later steps
    labelled: Presence
    images: Presence  # novel images with the clusters in them

    @classmethod
    def open(cls, cfg: IncrementalConfig, truth: ClassGroups, train: dict[str, frozenset[int]]) -> "ClusterTask":
        """`train`: classes in the mask of each image of the data set. Raises UserError if the folder does not fit."""
        folder, known = cfg.pseudo_dir, truth.num_seen(0)
        if not folder or cfg.method == "joint":
            wrong = "method=joint: labels are needed" if folder else "pseudo_dir: missing; give a pseudo-label folder"
            raise UserError(f"{wrong} (setting=discovered learns the clusters of one step by step)")
        labelled = [(name, train.get(name, frozenset())) for name in read_list(folder / "base.txt")]
        later = frozenset(truth.order[known:])
        early = next(((name, found & later) for name, found in labelled if found & later), None)
        if early:
            seen = truth.classes[min(early[1])]
            problem = f"labelled image '{early[0]}' holds '{seen}', which task={cfg.task} learns later"
            raise UserError(f"{folder / 'base.txt'}: {problem}; made for another split?")
        novel = read_list(folder / "novel.txt")
        values = values_of(clustered_labels(folder).paths(novel))
        count = max((max(found, default=0) for found in values), default=0) - known + 1
        steps = len(truth.groups) - 1
        if count < steps:
            raise UserError(f"{folder}: {max(count, 0)} clusters, but task={cfg.task} has {steps} later steps")
        first = len(truth.classes)
        images = [
            (name, frozenset(first + value - known for value in found if value >= known))
            for name, found in zip(novel, values, strict=True)
        ]
        return cls(folder, truth, with_clusters(truth, count), labelled, images)

    @property
    def inputs(self) -> dict[str, Path]:
        """Files that a run depends on, by name."""
        return {name: self.folder / name for name in ("base.txt", "novel.txt", CLUSTERED)}

    def samples(
        self, context: DataContext, ids: Sequence[str], fields: tuple[str, ...], label_map: LabelMap
    ) -> dict[str, Sample]:
        """Samples of those images that have pseudo-labels, which replace their masks, with their own label map."""
        novel = {name for name, _ in self.images}
        unlabelled = tuple(field for field in fields if field != "label")
        found = context.index([name for name in ids if name in novel], unlabelled)
        if "label" in fields:
            found = clustered_labels(self.folder).as_masks(found, self.label_map(label_map))
        return {sample.id: sample for sample in found}

    def label_map(self, label_map: LabelMap) -> LabelMap:
        """The map of pseudo-label values that equals a map of class numbers; base classes become background."""
        known, first = self.truth.num_seen(0), len(self.truth.classes)
        clusters = {known + k: label_map.new_value(first + k) for k in range(len(self.task.classes) - first)}
        return LabelMap.from_pairs({**dict.fromkeys(range(known), 0), **clusters})


def with_clusters(truth: ClassGroups, count: int) -> ClassGroups:
    """The task with clusters instead of later classes, distributed over the steps in proportion to their classes."""
    first, known, steps = len(truth.classes), truth.num_seen(0), len(truth.groups)
    if first + count > IGNORE:
        raise UserError(f"{count} clusters and {first} classes do not fit into label files; at most {IGNORE} in all")
    total = len(truth.order) - known
    bounds = [round(count * (truth.num_seen(step) - known) / total) for step in range(steps)]
    later = tuple(tuple(range(first + a, first + b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True))
    names = tuple(f"cluster {k}" for k in range(count))
    return replace(truth, classes=truth.classes + names, groups=(truth.groups[0], *later))
