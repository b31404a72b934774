"""Pseudo-labels: label maps made by a network or by clustering, with a manifest that says from what.

One kind of folder serves class discovery, self-training (ZS5Net) and weak-shot segmentation (SimFormer):

    <id>.png        label map at image size; 255 (65535 in 16 bits) is ignored
    manifest.json   split, classes, novel: what the values mean
                    made_from, settings: digests of the inputs (network, clusters) and the options
                    images: id -> confidence in [0, 1] ([-1, 1] of clusters), number of labelled pixels

The manifest is written last, so a folder with a manifest is complete.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from data.io import read_label, write_label
from data.label_map import LabelMap
from data.layouts import Sample
from utils import dist
from utils.background import Background
from utils.checkpoint import digest, read_json, settle, write_json
from utils.errors import UserError
from utils.labels import IGNORE, ignore_of
from utils.log import log
from utils.measure.confusion import predict, respond
from utils.run import Run
from utils.text import few

MANIFEST = "manifest.json"
CLUSTERED = "pseudo_labels"  # folder of label maps inside a folder of cluster_pseudolabel.py


@dataclass(frozen=True)
class Origin:
    """Meaning of the values of label maps: class names by value, and the novel or unseen classes of the split."""

    split: str
    classes: tuple[str, ...]
    novel: tuple[str, ...]


@dataclass(frozen=True)
class PseudoLabel:
    """The label map of one image, uint8 or uint16 [H, W]. `about` holds further facts for the manifest."""

    image: str
    values: np.ndarray
    confidence: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


Add = Callable[[PseudoLabel], None]


@dataclass(frozen=True)
class PseudoLabels:
    """A folder of pseudo-labels. Without `origin`, readers do not check the classes."""

    folder: Path
    origin: Origin | None
    made_by: str  # command that makes the folder
    needs_manifest: bool = True  # False: folders of the official NCDSS program, which have none, are read

    def path(self, image: str) -> Path:
        return self.folder / f"{image}.png"

    # ---- writing

    def finished(self, made_from: Mapping[str, Path], settings: Mapping[str, Any]) -> bool:
        """Whether the folder is complete and was made from these files with these settings."""
        found = self._manifest()
        about = self._about(made_from, settings)
        return found is not None and {key: found.get(key) for key in about} == about

    @contextmanager
    def writing(self, made_from: Mapping[str, Path], settings: Mapping[str, Any]) -> Iterator[Add]:
        """Yields a function that writes a label map; all processes write their share, threads may call it.

        Deletes the labels of an earlier run first. Writes the manifest when the block succeeds.
        """
        dist.barrier()  # every process has asked for the manifest before it is deleted
        if dist.is_main():
            for path in (self.folder / MANIFEST, *self.folder.glob("*.png")):
                path.unlink(missing_ok=True)
        dist.barrier()
        images: dict[str, dict[str, Any]] = {}

        def add(label: PseudoLabel) -> None:
            write_label(self.path(label.image), label.values, settled=False)
            labelled = int(np.count_nonzero(label.values != ignore_of(label.values)))
            images[label.image] = {"confidence": label.confidence, "labelled": labelled, **label.about}

        yield add
        found = {name: entry for part in dist.gather(images) for name, entry in part.items()}
        if dist.is_main():  # gathered, so all processes have written theirs
            settle(self.folder)
            about = self._about(made_from, settings) | {"images": dict(sorted(found.items()))}
            write_json(self.folder / MANIFEST, about)
        dist.barrier()
        log.info("pseudo-labels of %d images in %s", len(found), self.folder)

    def _about(self, made_from: Mapping[str, Path], settings: Mapping[str, Any]) -> dict[str, Any]:
        assert self.origin is not None  # readers alone may leave it out
        return {
            "split": self.origin.split,
            "classes": list(self.origin.classes),
            "novel": list(self.origin.novel),
            "made_from": {name: digest(path) for name, path in made_from.items()},
            "settings": dict(settings),
        }

    # ---- reading

    def paths(self, ids: Iterable[str]) -> list[Path]:
        """The files of images. Raises UserError if one is missing, or if the folder belongs to other classes."""
        self._check()
        paths = [self.path(name) for name in ids]
        present = {path.name for path in self.folder.glob("*.png")}
        missing = [path for path in paths if path.name not in present]
        if missing:
            raise UserError(
                f"{missing[0]}: no such file; {len(missing)} of {len(paths)} images have no pseudo-label; run: python "
                f"{self.made_by}"
            )
        return paths

    def added_to(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with the path of their pseudo-label in the field `pseudo`."""
        paths = self.paths(sample.id for sample in samples)
        return [replace(sample, pseudo=path) for sample, path in zip(samples, paths, strict=True)]

    def as_masks(self, samples: Sequence[Sample], label_map: LabelMap | None = None) -> list[Sample]:
        """Samples whose label is the pseudo-label, read with `label_map` (default: every class keeps its value)."""
        paths, label_map = self.paths(sample.id for sample in samples), label_map or self.label_map
        return [
            replace(sample, label=path, label_map=label_map, read_label=read_label)
            for sample, path in zip(samples, paths, strict=True)
        ]

    @property
    def label_map(self) -> LabelMap:
        """Class values stay as they are; any other value is an error."""
        assert self.origin is not None
        return LabelMap.from_pairs({number: number for number in range(len(self.origin.classes))})

    def read(self, path: Path) -> np.ndarray:
        """uint8 [H, W]. Raises UserError if a value is no class."""
        return self.label_map(read_label(path), where=str(path))

    def confidences(self) -> dict[str, float]:
        """Image id -> confidence, for the images that have one; empty without a manifest."""
        images = (self._manifest() or {}).get("images", {})
        return {name: entry["confidence"] for name, entry in images.items() if entry["confidence"] is not None}

    def _manifest(self) -> dict[str, Any] | None:
        path = self.folder / MANIFEST
        return read_json(path) if path.is_file() else None

    def _check(self) -> None:
        found, origin, path = self._manifest(), self.origin, self.folder / MANIFEST
        if origin is None or (found is None and not self.needs_manifest):
            return
        if found is None or not {"split", "classes", "novel"} <= found.keys():
            raise UserError(
                f"{path}: missing or incomplete, so the classes of the pseudo-labels are unknown; run: python "
                f"{self.made_by}"
            )
        if set(found["novel"]) != set(origin.novel) or found["classes"] != list(origin.classes):
            raise UserError(
                f"{self.folder}: pseudo-labels of split={found['split']} ({few(found['novel'])} novel of "
                f"{len(found['classes'])} classes), but split={origin.split} has {few(origin.novel)} of "
                f"{len(origin.classes)}; give the folder of this split, or run: python {self.made_by}"
            )


def clustered_labels(folder: Path, origin: Origin | None = None) -> PseudoLabels:
    """The label maps in a folder of cluster_pseudolabel.py, or in one of the official NCDSS program."""
    return PseudoLabels(folder / CLUSTERED, origin, "cluster_pseudolabel.py CONFIG", needs_manifest=False)


@torch.inference_mode()
def label_images(
    network: nn.Module, label: Callable[[Any, dict], Iterable[PseudoLabel]], loader: Iterable, add: Add, run: Run
) -> None:
    """Writes the pseudo-labels of a loader's images, this process's share.

    label(output, batch) turns what the network returns for a batch into the label maps of its images.
    """

    def forward(images: torch.Tensor) -> Any:
        return respond(network, images)

    with Background() as background:
        for batch, output in predict(forward, network, loader, run, "pseudo-labels"):
            for made in label(output, batch):
                background.call(add, made)


def mean_certainty(certainty: torch.Tensor, predicted: np.ndarray) -> float | None:
    """Mean certainty [h, w] over the pixels that took the network's prediction, bool [H, W]; None if none did."""
    size = (certainty.shape[1], certainty.shape[0])
    here = cv2.resize(predicted.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return round(float(certainty.float().cpu().numpy()[here].mean(dtype=np.float64)), 4) if here.any() else None


def merge_labels(
    prediction: np.ndarray, label: np.ndarray, tags: np.ndarray, novel: Sequence[int], has_mask: bool = True
) -> np.ndarray:
    """Pseudo-label of weak-shot segmentation, train ids uint8 [H, W].

    A pixel takes the true label where it is a base class, else the prediction if that is a novel class of the image's
    tags, else 255. In an image without a mask, predicted base classes of the tags count, too.

    prediction, label: integers [H, W]; tags [K]: 1 for each class of the image; novel: train ids.
    """
    num_classes = len(tags)
    wanted = np.zeros(IGNORE + 1, bool)
    unmasked = list(novel) if has_mask else list(range(num_classes))
    wanted[unmasked] = tags[unmasked] > 0
    base = np.ones(IGNORE + 1, bool)
    base[[*novel, *range(num_classes, IGNORE + 1)]] = False
    values = prediction.astype(np.uint8)
    return np.where(base[label], label, np.where(wanted[values], values, IGNORE)).astype(np.uint8)
