"""Prototypes of units and of base classes from a frozen network.

N units, D features, S pixels per side, h w feature cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm.contrib.concurrent import thread_map

from data.dataset import SegmentationDataset
from data.discovery.builder import DiscoveryData
from data.discovery.units import FOLDER, NOVEL_MAPS, Unit, connected_parts
from data.io import read_label, write_label
from utils import dist
from utils.errors import UserError
from utils.labels import is_wide
from utils.measure.clustering import mask_prototypes, part_prototypes
from utils.measure.confusion import predict, respond
from utils.measure.regions import over_segment
from utils.run import Run

NAMED_IMAGES = 400  # images for prototypes of base classes, used to estimate K and to suggest names


@dataclass(frozen=True)
class Describer:
    """Features of a FeatureNetwork on the run's device; the run folder holds novel_map/ and parts/."""

    data: DiscoveryData
    network: nn.Module
    run: Run

    def objects(self, units: Sequence[Unit], parts: bool) -> np.ndarray:
        """Prototypes [N, D]: L2-normalised mean feature of each unit; `parts`: images may have several units."""
        ids, count = list(dict.fromkeys(unit.image for unit in units)), max(unit.part for unit in units)
        dataset = self.data.objects(ids, self.run.dir, self._side, parts=parts)
        numbers = torch.arange(1, count + 1, device=self.run.device)[:, None, None]
        rows: dict[int, np.ndarray] = {}
        for batch, features in self._walk(dataset, "features"):
            weights = batch["saliency"].to(self.run.device)[:, None].float()
            if parts:
                weights = weights * (batch["pseudo"].to(self.run.device)[:, None] == numbers)
            vectors = part_prototypes(features, weights).cpu().numpy()
            rows |= dict(zip(batch["index"].tolist(), vectors, strict=True))
        everywhere = {ids[index]: row for part in dist.gather(rows) for index, row in part.items()}
        return np.stack([everywhere[unit.image][unit.part - 1] for unit in units])

    def base_objects(self) -> dict[int, np.ndarray]:
        """Base class 1..A -> prototypes [n, D] of its regions, one per image with the class; n may be 0."""
        base = self.data.lists.base
        dataset = self.data.labelled_at(base[:: max(1, len(base) // NAMED_IMAGES)], self._side)
        rows: dict[int, list[np.ndarray]] = {number: [] for number in range(1, self.data.num_known)}
        for batch, features in self._walk(dataset, "base classes"):
            label = batch["label"].to(self.run.device)
            for number in set(label.unique().tolist()) & rows.keys():
                shown = (label == number).flatten(1).any(1)
                vectors = mask_prototypes(features[shown], (label[shown] == number).float())
                rows[number] += list(vectors.cpu().numpy())
        parts = dist.gather(rows)
        return {number: np.array([row for part in parts for row in part[number]]) for number in rows}

    def cells(self, ids: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(image id, over-segmentation by features, int32 [S/4, S/4]) of this process's images."""
        dataset, cfg = self.data.objects(ids, self.run.dir, self._side), self.data.cfg
        for batch, features in self._walk(dataset, "regions"):
            arrays = zip(batch["index"].tolist(), features.cpu().numpy(), batch["image"].numpy(), strict=True)
            for index, cells, image in arrays:
                yield dataset.samples[index].id, over_segment(cells, image, cfg.cluster.regions, cfg.seed)

    @property
    def _side(self) -> int:
        return self.data.cfg.cluster.features_size or self.data.cfg.data.image_size

    def _walk(self, dataset: SegmentationDataset, title: str) -> Iterator[tuple[dict, torch.Tensor]]:
        """(batch, features float [B, D, h, w])."""

        def features_of(images: torch.Tensor) -> torch.Tensor:
            return respond(self.network, images).features.float()

        loader = self.data.context.loader(dataset, self.data.cfg.cluster.batch_size)
        return predict(features_of, self.network, loader, self.run, title)


def base_means(data: DiscoveryData, objects: dict[int, np.ndarray]) -> np.ndarray:
    """Mean prototype [A, D] of each base class. Raises UserError for a class without one."""
    missing = next((data.groups.names[number] for number, vectors in objects.items() if not len(vectors)), None)
    if missing:
        raise UserError(f"cluster.names=suggest: no pixel of base class '{missing}' in the images of base classes")
    return np.stack([vectors.mean(0) for vectors in objects.values()])


def divide(ids: Sequence[str], describer: Describer | None, least: float, run: Run) -> dict[str, list[int]]:
    """Writes parts/<id>.png, the connected parts of each novel region; returns image id -> pixels of its parts.

    Parts below the share `least` of the image are left out. With a describer, parts end at the borders of its cells.
    """
    sizes: dict[str, list[int]] = {}

    def write(image_id: str, cells: np.ndarray | None = None) -> None:
        sizes[image_id] = write_parts(run.dir, image_id, least, cells)

    if describer is None:
        thread_map(write, dist.share(ids), desc="parts", leave=False, disable=None)
    else:
        for found in describer.cells(ids):
            write(*found)
    return {image_id: found for part in dist.gather(sizes) for image_id, found in part.items()}


def write_parts(folder: Path, image_id: str, least: float, cells: np.ndarray | None = None) -> list[int]:
    """Writes parts/<id>.png from novel_map/<id>.png and `cells` [g, g]; returns the pixels of each part."""
    region = read_label(folder / NOVEL_MAPS / f"{image_id}.png") > 0
    if cells is not None:
        cells = cv2.resize(cells, region.shape[::-1], interpolation=cv2.INTER_NEAREST)
    parts = connected_parts(region, least, cells)
    sizes = np.bincount(parts.ravel())[1:].tolist()
    kind = np.uint16 if is_wide(1 + len(sizes)) else np.uint8
    write_label(folder / FOLDER / f"{image_id}.png", parts.astype(kind), settled=False)
    return sizes
