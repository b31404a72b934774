"""Exemplar memory of SSUL-M (Cha et al., NeurIPS 2021): a few images, balanced over the learned classes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.dataset import SegmentationDataset
from data.io import voc_palette
from data.label_map import IGNORE
from utils import checkpoint
from utils.errors import UserError
from utils.report.pictures import overlay, sheet

MEMORY_FILE = "memory.json"
SHOWN, SIDE = 8, 112  # exemplars per class in the picture; side of each, pixels


@dataclass(frozen=True)
class Candidate:
    """An image with the train ids of its foreground classes."""

    id: str
    classes: tuple[int, ...]
    labels: int = 0  # number of label values, as in the official records
    pixels: int = 0  # foreground pixels


def describe(image_id: str, label: np.ndarray, last_background: int) -> Candidate:
    """The candidate of a label [H, W] of channel numbers; channels up to `last_background` are no classes."""
    numbers = [number - last_background for number in np.unique(label).tolist() if number != IGNORE]
    pixels = int(((label > last_background) & (label != IGNORE)).sum())
    return Candidate(image_id, tuple(number for number in numbers if number > 0), len(numbers), pixels)


def read_memory(path: Path) -> list[Candidate]:
    """The exemplars in memory.json, by class in the order of choice. Raises UserError for a missing or other file."""
    entries = checkpoint.read_json(path)["memory"]
    try:
        return [Candidate(**{**entry, "classes": tuple(entry["classes"])}) for entry in entries]
    except (KeyError, TypeError):
        raise UserError(f"{path}: 'memory' is no list of exemplars (id and classes); do the step again") from None


def write_memory(path: Path, chosen: dict[int, list[Candidate]], names: Sequence[str]) -> None:
    """Writes the exemplars by class number, and for readers their ids by class name."""
    by_class = {names[number]: [candidate.id for candidate in picked] for number, picked in sorted(chosen.items())}
    memory = [asdict(candidate) for number in sorted(chosen) for candidate in chosen[number]]
    checkpoint.write_json(path, {"memory": memory, "by_class": by_class})


def choose_exemplars(
    candidates: Sequence[Candidate], num_old: int, size: int, rng: np.random.RandomState
) -> dict[int, list[Candidate]]:
    """Old class 1..num_old-1 -> its exemplars in the order of choice, `size` in total, fewer if candidates run out.

    Shuffles candidates, then classes; then each class in turn takes the first candidate that shows it.
    """
    if not size:
        raise UserError("ssul.memory=0: method=ssul_m needs exemplars; use method=ssul")
    rest, classes = list(candidates), list(range(1, num_old))
    rng.shuffle(rest)  # type: ignore[arg-type]  # the stub knows lists of numbers only
    rng.shuffle(classes)
    chosen: dict[int, list[Candidate]] = {number: [] for number in range(1, num_old)}
    taken = 0
    while taken < size:
        before = taken
        for number in classes:
            place = next((i for i, candidate in enumerate(rest) if number in candidate.classes), None)
            if place is None:
                continue
            chosen[number].append(rest.pop(place))
            taken += 1
            if taken == size:
                return chosen
        if taken == before:  # no candidate left; the official code loops forever
            break
    return chosen


def draw_memory(chosen: dict[int, list[Candidate]], dataset: SegmentationDataset, names: Sequence[str]) -> np.ndarray:
    """A picture uint8 [H, W, 3] with a row of exemplars per class, its pixels in colour; `dataset` has whole images."""
    places = {sample.id: index for index, sample in enumerate(dataset.samples)}
    widest = min(max(map(len, chosen.values())), SHOWN)

    def cell(number: int, column: int) -> np.ndarray:
        if column >= len(chosen[number]):
            return np.full((SIDE, SIDE, 3), 255, np.uint8)
        fields = dataset[places[chosen[number][column].id]]
        label = np.where(fields["label"].numpy() == number, number, 0).astype(np.uint8)
        return overlay(fields["image"].permute(1, 2, 0).numpy(), label, voc_palette(), {}, {number}, SIDE)

    columns = [[cell(number, column) for number in chosen] for column in range(widest)]
    total = sum(map(len, chosen.values()))
    return sheet(columns, [f"{names[n]} {len(picked)}" for n, picked in chosen.items()], f"{total} exemplars", [])
