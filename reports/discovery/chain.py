"""The finished stages of a discovery chain, and its data."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.discovery.builder import DiscoveryData
from data.discovery.units import Unit, read_parts, read_units
from data.io import read_image, read_label
from data.layouts import Sample
from reports.discovery.table import BASELINES, METHODS
from reports.page import arrange_confusion
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError
from utils.report import charts, html, pictures
from utils.report.results import finished_stages
from utils.run_folder import stage_dir

REFERENCES = ("base model", "basic, random labels", "basic, oracle labels")  # rows that are no methods
METHOD_COLORS = {"base model": "#4a9d77", "basic": "#9db1cc", "EUMS": "#2457c5"}
KIND_COLORS = {"base": "#66758a", "novel": "#8b5fcf", "clean": "#16a085", "unclean": "#e27d34"}  # of classes and images
MOST_IMAGES = 3000  # images whose true masks are read


@dataclass(frozen=True)
class Chain:
    """The finished stages of one split, and its data."""

    data: DiscoveryData
    folder: Path
    metrics: dict[str, dict[str, Any]]  # of finished stages only

    @classmethod
    def open(cls, cfg: DiscoveryConfig) -> "Chain":
        """Raises UserError if no stage is finished, or if the data set cannot be read."""
        folder = stage_dir(cfg, "report").parent
        return cls(DiscoveryData.open(cfg), folder, finished_stages(folder, "scripts/chain.sh CONFIG"))

    # ---- stages

    @property
    def rows(self) -> dict[str, str]:
        """Row of the result table -> its stage: METHODS, then all other evaluated stages."""
        baselines = {row: stage for row, stage in BASELINES.items() if stage in self.metrics}
        more = {name.removeprefix("eval_"): name for name in self.metrics if name.startswith("eval_")}
        listed = METHODS | baselines
        return listed | {row: stage for row, stage in more.items() if stage not in listed.values()}

    @property
    def shown_rows(self) -> dict[str, str]:
        """`rows` without the reference runs if the novel classes are unknown: they need true labels."""
        hidden = REFERENCES[1:] if self.data.is_unknown else ()
        return {row: stage for row, stage in self.rows.items() if row not in hidden}

    @property
    def methods(self) -> dict[str, str]:
        """The evaluated methods, without base model and reference runs."""
        found = {
            row: stage
            for row, stage in self.rows.items()
            if {"novel_miou", "match"} & self.metrics.get(stage, {}).keys()
        }
        return {row: stage for row, stage in found.items() if row not in REFERENCES}

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each method and of the base model."""
        return charts.series_colors(self.methods) | METHOD_COLORS

    # ---- classes

    @property
    def num_known(self) -> int:
        """Number of background and base classes."""
        return self.data.num_known

    @property
    def names(self) -> list[str]:
        """Names of background, base and novel classes."""
        return self.data.groups.names

    @property
    def novel_names(self) -> list[str]:
        return self.names[self.num_known :]

    @property
    def numbers(self) -> list[int]:
        """Number in the masks of each of `names`."""
        return list(self.data.groups.order)

    @property
    def novel_numbers(self) -> list[int]:
        return self.numbers[self.num_known :]

    @property
    def classes(self) -> Sequence[str]:
        """Class names by their number in the masks."""
        return self.data.groups.classes

    def samples(self, ids: Iterable[str], *fields: str, **where: Any) -> list[Sample]:
        """Samples of the data set with these fields (data.layouts.index_samples)."""
        return self.data.context.index(ids, ("image", *fields), **where)

    # ---- clusters

    @cached_property
    def clusters(self) -> dict[Unit, int]:
        """Object -> cluster 1..K."""
        return read_units(self.folder / "pseudo" / "clusters.json", int)

    @cached_property
    def members(self) -> dict[int, list[Unit]]:
        """Cluster -> its objects in the order of their images."""
        found: dict[int, list[Unit]] = {}
        for unit, cluster in sorted(self.clusters.items(), key=lambda pair: (pair[1], pair[0])):
            found.setdefault(cluster, []).append(unit)
        return found

    @cached_property
    def units(self) -> dict[str, list[Unit]]:
        """Image id -> its objects; several only if cluster.unit is not image."""
        found: dict[str, list[Unit]] = defaultdict(list)
        for unit in self.clusters:
            found[unit.image].append(unit)
        return found

    @cached_property
    def true_class(self) -> dict[Unit, int]:
        """Object -> its true class (DiscoveryData.true_classes); empty if there are no masks.

        At most MOST_IMAGES images are read, at even distances.
        """
        ids = sorted(self.units)
        try:
            samples = self.samples(ids[:: -(-len(ids) // MOST_IMAGES)], "label")
        except UserError:
            return {}
        found: dict[Unit, int] = {}
        for sample in samples:
            classes = self.data.true_classes(sample, read_parts(self.folder / "pseudo", sample.id))
            found |= dict(zip(self.units[sample.id], classes, strict=True))
        return found

    def class_name(self, number: int) -> str:
        """Name of a value of `true_class`."""
        if number < 0:
            return self.names[-number]
        return self.novel_names[number - 1] if number else "no novel class"

    @cached_property
    def main_class(self) -> dict[int, tuple[int, float]]:
        """Cluster -> (most frequent true class, share of its objects); empty if there are no masks."""
        return majority_class([(self.clusters[unit], found) for unit, found in self.true_class.items()])

    def misplaced(self, unit: Unit) -> bool:
        """Whether the true class of an object is known and is not the most frequent one of its cluster."""
        return unit in self.true_class and self.true_class[unit] != self.main_class[self.clusters[unit]][0]

    def region(self, unit: Unit) -> np.ndarray:
        """Mask of an object, bool [H, W]."""
        return read_parts(self.folder / "pseudo", unit.image) == unit.part

    def novel_map(self, name: str) -> np.ndarray:
        """The pixels of an image that clustering uses, uint8 [H, W]."""
        return read_label(self.folder / "pseudo" / "novel_map" / f"{name}.png")

    def crops(self, units: Sequence[Unit]) -> list[str]:
        """Pictures of objects as HTML, misplaced ones in a frame."""
        shown = []
        for unit, sample in zip(units, self.samples([unit.image for unit in units]), strict=True):
            picture = pictures.crop_object(read_image(sample.image), self.region(unit).astype(np.uint8))
            known = unit in self.true_class
            title = f"{sample.id}: {self.class_name(self.true_class[unit])}" if known else sample.id
            shown.append(html.image(picture, "wrong" if self.misplaced(unit) else "", title))
        return shown


# ---- confusion and clusters


def collapse_confusion(matrix: np.ndarray, num_known: int, clusters: Sequence[int]) -> np.ndarray:
    """arrange_confusion with all base classes merged: [2+n, 2+K], background first, then base."""
    starts = [0, 1, *range(num_known, matrix.shape[0])]
    merged = np.add.reduceat(matrix, starts, axis=0)
    merged = np.add.reduceat(merged, [0, 1, *range(num_known, matrix.shape[1])], axis=1)
    return arrange_confusion(merged, 2, clusters)


def majority_class(objects: Iterable[tuple[int, int]]) -> dict[int, tuple[int, float]]:
    """(cluster, class) of every object -> {cluster: (most frequent class, its share of the objects)}."""
    members: dict[int, Counter] = defaultdict(Counter)
    for cluster, novel in objects:
        members[cluster][novel] += 1
    main = {cluster: min(counts, key=lambda c: (-counts[c], c)) for cluster, counts in members.items()}
    return {cluster: (main[cluster], counts[main[cluster]] / counts.total()) for cluster, counts in members.items()}


def split_point(clean: Sequence[float], unclean: Sequence[float]) -> float | None:
    """The value half-way between the largest clean and the smallest unclean one; None if one group is empty."""
    return (max(clean) + min(unclean)) / 2 if clean and unclean else None
