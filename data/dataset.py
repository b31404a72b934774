"""The data set class of all systems: reads fields, re-indexes labels, applies a joint transform."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.io import MaskRule, orientation, read_image, read_label, read_mask
from data.label_map import LabelMap
from data.layouts import Sample
from utils.errors import UserError

Transform = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray] | None]
SAME_IMAGE, ATTEMPTS = 3, 100  # draws from one image, and in total, if a transform rejects them


class Draw(NamedTuple):
    """One sample of one pass. Its augmentation depends only on (seed, epoch, cycle, index)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which no draw needs
    epoch: int = 0
    cycle: int = 0


class SegmentationDataset(Dataset):
    """Samples as dicts of uint8 tensors: "image" [3, S, S], all other fields [S, S], "index", and "size" (height and
    width of the file). Labels of 16 bits are int32. Transforms may add fields, such as "strong" [3, S, S].

    label_map, pseudo_map   re-index "label" and "pseudo"; a sample's own label_map replaces the former
    mask_rule               reads saliency as 0 and 1
    max_side                shrinks decoded files to this longest side
    cache                   keeps decoded files in memory, per worker

    A transform rejects a draw by returning None; two more draws of the same image follow, then random other images.
    Raises UserError for unreadable files, label values that are not allowed, and fields of different sizes.
    """

    gives_native = False  # see with_native

    def __init__(
        self,
        samples: Sequence[Sample],
        fields: tuple[str, ...],
        *,
        transform: Transform,
        label_map: LabelMap | None = None,
        pseudo_map: LabelMap | None = None,
        mask_rule: MaskRule | None = None,
        seed: int = 0,
        cache: bool = False,
        max_side: int | None = None,
    ):
        self.samples, self.fields, self.transform = list(samples), fields, transform
        self.maps = {"label": label_map, "pseudo": pseudo_map}
        self.mask_rule, self.seed, self.max_side = mask_rule, seed, max_side
        self.memory: dict[int, tuple[dict[str, np.ndarray], tuple[int, int]]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw | int) -> dict:
        index, epoch, cycle = draw if isinstance(draw, tuple) else (draw, 0, 0)
        return self.sample(index, np.random.default_rng([self.seed, epoch, cycle, index]))

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        """The sample of an image, or of another image if the transform rejects it."""
        arrays, size = self._read(index)
        for attempt in range(ATTEMPTS):
            if attempt >= SAME_IMAGE:
                index = int(rng.integers(len(self)))
                arrays, size = self._read(index)
            made = self.transform(arrays, rng)
            if made is not None:
                made = {**made, "native": self._native(index, arrays, size)} if self.gives_native else made
                tensors = {name: _tensor(values) for name, values in made.items()}
                return {**tensors, "index": index, "size": torch.tensor(size)}
        raise UserError(f"{self.samples[index].image}: none of {ATTEMPTS} draws from it and other images gave a sample")

    def _read(self, index: int) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        if self.memory is not None and index in self.memory:
            return self.memory[index]
        sample = self.samples[index]
        arrays = {field: self._read_field(sample, field) for field in self.fields}
        size = arrays["image"].shape[:2]
        for field, values in arrays.items():
            if values.shape[:2] != size:
                path, shape = getattr(sample, field), f"{values.shape[1]}x{values.shape[0]}"
                raise UserError(
                    f"{path}: {shape} pixels, but {sample.image} has {size[1]}x{size[0]}{turn_of(sample.image)}; an "
                    "image and its maps must be of one size"
                )
        if self.max_side and max(size) > self.max_side:
            arrays = {field: _shrink(field, values, self.max_side) for field, values in arrays.items()}
        if self.memory is not None:
            self.memory[index] = (arrays, size)
        return arrays, size

    def with_native(self) -> "SegmentationDataset":
        """A copy with the additional field "native": the untransformed label at file size."""
        found = copy.copy(self)
        found.gives_native = True
        return found

    def _native(self, index: int, arrays: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
        label = arrays.get("label")  # read once, unless it was shrunk
        return label if label is not None and label.shape == size else self.native(index)

    def native(self, index: int) -> np.ndarray:
        """The re-indexed label of an image at file size, uint8 or uint16 [H, W]."""
        return self._read_field(self.samples[index], "label")

    def _read_field(self, sample: Sample, field: str) -> np.ndarray:
        path = getattr(sample, field)
        if field == "image":
            return read_image(path)
        if field == "saliency" and self.mask_rule:
            return read_mask(path, self.mask_rule, one_sided=True)  # an empty map is valid here
        if field == "label":
            label_map = sample.label_map or self.maps["label"]
            label = read_label(path) if sample.label_map else sample.read_label(path)
        else:
            label_map, label = self.maps.get(field), read_label(path)
        return label_map(label, where=str(path)) if label_map else label


def turn_of(image: Path) -> str:
    """Explanation of a map of another size: it may have been drawn on the image as turned by EXIF; '' without turn."""
    turn = orientation(image)
    return "" if turn == 1 else f" as stored (EXIF turn {turn}: the map may have been drawn on the turned image)"


def _shrink(field: str, values: np.ndarray, longest: int) -> np.ndarray:
    height, width = values.shape[:2]
    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # plain nearest samples the corner of each area, which shifts labels by half a pixel against the image
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if field == "image" else cv2.INTER_NEAREST_EXACT)


def _tensor(values: np.ndarray) -> torch.Tensor:
    """[H, W, 3] -> [3, H, W]; maps [H, W] stay, except that uint16 becomes int32, which torch supports better."""
    if values.ndim == 3:
        planes = np.empty((values.shape[2], *values.shape[:2]), values.dtype)
        cv2.split(values, list(planes))
        return torch.from_numpy(planes)
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.int32) if values.dtype == np.uint16 else values))
