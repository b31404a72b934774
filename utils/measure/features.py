"""Features of objects by a frozen network: a vector per object or per feature cell, and the classes in the masks.

B images, N objects, P cells, C classes, D features, S pixels a side, h w feature cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import dist
from utils.errors import UserError
from utils.log import log
from utils.measure.clustering import mask_prototypes
from utils.measure.confusion import Save, at_size, image_confusion, native_labels, predict, respond
from utils.measure.metrics import confusion_matrix
from utils.measure.retrieval import cell_counts, majority_label
from utils.run import Run


@dataclass(frozen=True)
class Objects:
    """One object per image: prototypes float32 [N, D]; pixels of each class outside and inside it, [N, C, 2]."""

    prototypes: np.ndarray
    counts: np.ndarray

    def classes(self, excluded: tuple[int, ...] = (0,)) -> np.ndarray:
        """Majority class of each object, 0 for none."""
        return majority_label(self.counts[:, :, 1], excluded)


@dataclass(frozen=True)
class FeatureExtractor:
    """Runs a frozen network (models.contrast.probes.FeatureNetwork) over loaders.

    The object of an image is where the network's weight is positive; with `given_masks`, where the batch's saliency is.
    """

    network: nn.Module
    num_classes: int
    run: Run
    given_masks: bool

    def walk(self, loader, title: str) -> Iterator[tuple[dict, torch.Tensor, torch.Tensor]]:
        """(batch, features [B, D, h, w], weights [B, S, S] that are positive on objects)."""
        for batch, found in predict(partial(respond, self.network), self.network, loader, self.run, title):
            given = batch["saliency"].to(self.run.device).float() if self.given_masks else None
            yield batch, found.features.float(), found.weight if given is None else given

    def objects(self, loader, title: str, save: Save | None = None) -> Objects:
        """Prototypes as in the official evaluation: un-normalised pixel embeddings, weighted by the saliency logit.

        Pixels are counted at network resolution if batches have labels, else at mask size. `save` is called with the
        object mask (0 and 1) of every image at file size.
        """
        rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        images = loader.dataset.dataset
        for batch, features, weight in self.walk(loader, title):
            prototypes, region = mask_prototypes(features, weight), (weight > 0).to(torch.uint8)
            indices = batch["index"].tolist()
            if "label" in batch:
                pairs = zip(region, batch["label"].to(self.run.device), strict=True)
                counts = torch.stack([confusion_matrix(r, label, 2, self.num_classes) for r, label in pairs])
                if save:
                    for index, size, values in zip(indices, batch["size"].tolist(), region.cpu().numpy(), strict=True):
                        save(index, at_size(values, size))
            else:
                maps = region[:, None].cpu().numpy()
                keep = [save and partial(save, index) for index in indices]
                made = zip(native_labels(batch, images), maps, keep, strict=True)
                counts = torch.cat([image_confusion(t, m, self.num_classes, 2, save=k) for t, m, k in made])
            found = zip(prototypes.cpu().numpy(), counts.cpu().numpy(), strict=True)
            rows |= dict(zip(indices, found, strict=True))
        objects = Objects(*(np.stack(values) for values in zip(*_in_order(rows), strict=True)))
        self._require_objects(int(objects.prototypes.any(1).sum()), len(objects.prototypes))
        return objects

    def _require_objects(self, found: int, images: int) -> None:
        """Raises UserError if no image has an object, since the metrics would be meaningless."""
        source = "saliency map has a salient pixel" if self.given_masks else "saliency of the network finds an object"
        if not found:
            choice = "saliency" if self.given_masks else "head"
            cure = "check the maps" if self.given_masks else "check the checkpoint"
            raise UserError(f"foreground={choice}: in none of {images} images the {source}; {cure}")
        if found < images:
            log.info("%d of %d images are without an object; their vectors are zero", images - found, images)

    def patches(self, loader, most: int, title: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors [P, D] of at most `most` feature cells per object, and pixels of each class in them, [P, C].

        Cells are drawn at random from seed and image. If batches have no labels, the counts are [P, 0].
        """
        found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for batch, features, weight in self.walk(loader, title):
            height, width = features.shape[-2:]
            covered = F.adaptive_avg_pool2d(weight.gt(0).float(), (height, width)).flatten(1)
            inside = (covered > 0) & (covered >= covered.amax(1, keepdim=True).clamp(max=0.5))  # half, or the fullest
            vectors = F.normalize(features, dim=1).flatten(2).transpose(1, 2)  # [B, hw, D]
            if "label" in batch:
                label = batch["label"].to(self.run.device)
                counts = cell_counts(label, weight > 0, (height, width), self.num_classes).flatten(1, 2)
            else:
                counts = vectors.new_zeros(*vectors.shape[:2], 0)
            for place, index in enumerate(batch["index"].tolist()):
                rng = np.random.default_rng([self.run.cfg.seed, index])
                chosen = np.flatnonzero(inside[place].cpu().numpy())
                chosen = np.sort(rng.permutation(chosen)[:most])
                found[index] = vectors[place, chosen].cpu(), counts[place, chosen].cpu()
        listed = _in_order(found)
        self._require_objects(sum(len(vectors) > 0 for vectors, _ in listed), len(listed))
        return torch.cat([vectors for vectors, _ in listed]), torch.cat([counts for _, counts in listed])


def cell_vectors(features: torch.Tensor) -> torch.Tensor:
    """Unit vectors of all cells, [B, D, h, w] -> [B h w, D]."""
    return F.normalize(features, dim=1).permute(0, 2, 3, 1).flatten(0, 2)


def paint(numbers: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Numbers of cells [B, M, h, w] at the pixels of the object, 0 elsewhere: integers [B, M, S, S]."""
    large = F.interpolate(numbers.float(), size=weight.shape[-2:], mode="nearest").to(numbers.dtype)  # exact to 2^24
    return torch.where(weight[:, None] > 0, large, 0)


def _in_order(rows: dict[int, Any]) -> list[Any]:
    """The values of all processes, by index."""
    everywhere = {index: row for part in dist.gather(rows) for index, row in part.items()}
    return [everywhere[index] for index in sorted(everywhere)]
