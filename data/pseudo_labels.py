"""Pseudo-labels of weak-shot segmentation: base classes as in the masks, novel ones as a network sees them.

A folder of them says whose they are, in manifest.json. Nothing stands in for a file that is missing, and a folder of
other classes is refused: either would train a network on masks that it must not know.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.io import read_label, write_label
from data.label_map import LabelMap
from utils import checkpoint
from utils.errors import UserError
from utils.labels import IGNORE
from utils.text import few

MANIFEST = "manifest.json"
MAKE = "make them with stage=pseudo"


def pseudo_label(
    prediction: np.ndarray, label: np.ndarray, tags: np.ndarray, novel: Sequence[int], has_mask: bool = True
) -> np.ndarray:
    """Train ids uint8 [H, W]: base pixels of `label`; else what is predicted, if a novel class of the tags; else 255.

    Base classes of the tags are taken as predicted, too, where there is no mask to tell. prediction and label integers
    [H, W]; tags [K], 1 for each class of the image; novel are train ids.
    """
    num_classes = len(tags)
    wanted = np.zeros(IGNORE + 1, bool)
    unmasked = list(novel) if has_mask else list(range(num_classes))
    wanted[unmasked] = tags[unmasked] > 0
    base = np.ones(IGNORE + 1, bool)
    base[[*novel, *range(num_classes, IGNORE + 1)]] = False
    values = prediction.astype(np.uint8)
    return np.where(base[label], label, np.where(wanted[values], values, IGNORE)).astype(np.uint8)


@dataclass(frozen=True)
class Origin:
    """What pseudo-labels are of: class names by train id, the novel ones among them, the split they come from."""

    split: str
    classes: tuple[str, ...]
    novel: tuple[str, ...]


@dataclass(frozen=True)
class PseudoLabels:
    """A folder with manifest.json and <id>.png, values train ids and 255."""

    folder: Path
    origin: Origin

    def start(self, network: Path, settings: dict | None = None) -> set[str]:
        """Say in the folder whose labels they will be; the ids that it has from this network, with these settings.

        Labels of another network are deleted. One process does this, before any writes.
        """
        about = {**asdict(self.origin), "network": checkpoint.digest(network), "settings": settings or {}}
        about = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
        if self._manifest() == about:
            return {path.stem for path in self.folder.glob("*.png")}
        for path in self.folder.glob("*.png"):
            path.unlink()
        checkpoint.write_json(self.folder / MANIFEST, about)
        return set()

    def write(self, image_id: str, values: np.ndarray) -> None:
        write_label(self.folder / f"{image_id}.png", values)

    def paths(self, ids: Iterable[str]) -> list[Path]:
        """The files of images. UserError when one is missing, or the folder is of another split."""
        self._check()
        paths = [self.folder / f"{name}.png" for name in ids]
        there = {path.name for path in self.folder.glob("*.png")}
        missing = [path for path in paths if path.name not in there]
        if missing:
            raise UserError(
                f"{missing[0]}: no such file; {len(missing)} of {len(paths)} images have no pseudo-label; {MAKE}"
            )
        return paths

    @property
    def label_map(self) -> LabelMap:
        return LabelMap.from_pairs({number: number for number in range(len(self.origin.classes))})

    def read(self, path: Path) -> np.ndarray:
        """uint8 [H, W]; UserError for a value that is no class."""
        return self.label_map(read_label(path), where=str(path))

    def _manifest(self) -> dict | None:
        path = self.folder / MANIFEST
        return checkpoint.read_json(path) if path.is_file() else None

    def _check(self) -> None:
        found, path = self._manifest(), self.folder / MANIFEST
        if not isinstance(found, dict) or not {"split", "classes", "novel"} <= found.keys():
            raise UserError(f"{path}: does not say which classes the pseudo-labels are of; {MAKE}")
        if set(found["novel"]) != set(self.origin.novel) or found["classes"] != list(self.origin.classes):
            raise UserError(
                f"{self.folder}: pseudo-labels of split={found['split']} ({few(found['novel'])} novel of "
                f"{len(found['classes'])} classes), but split={self.origin.split} has {few(self.origin.novel)} of "
                f"{len(self.origin.classes)}; give the folder of this split, or {MAKE}"
            )
