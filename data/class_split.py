"""Which classes are base and which are novel, and the label maps that follow."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.label_map import IGNORE, LabelMap
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError

SPLITS = Path(__file__).parent / "splits"


@dataclass(frozen=True)
class ClassSplit:
    """Class ids are those of the masks, ascending, without background 0. A class in neither list counts as background.

    Training order: 0 background, 1..B base, then novel classes (validation) or clusters (training).
    """

    name: str
    classes: tuple[str, ...]
    base: tuple[int, ...]
    novel: tuple[int, ...]

    @property
    def num_base(self) -> int:
        return len(self.base)

    @property
    def num_novel(self) -> int:
        return len(self.novel)

    @property
    def original_ids(self) -> np.ndarray:
        """uint8 [1+B+n]: class id in the masks of each training id."""
        return np.array([0, *self.base, *self.novel], dtype=np.uint8)

    @property
    def names(self) -> list[str]:
        """Class names in training order, [1+B+n]."""
        return [self.classes[i] for i in self.original_ids]

    def base_map(self) -> LabelMap:
        """For training the base model: base to 1..B, novel objects are background."""
        return self._map({old: 1 + i for i, old in enumerate(self.base)})

    def full_map(self) -> LabelMap:
        """For validation: base to 1..B, novel to B+1..B+n."""
        return self._map({old: i for i, old in enumerate(self.original_ids.tolist())})

    def finetune_base_map(self) -> LabelMap:
        """For images listed without novel class: as base_map, but novel pixels that the list overlooked are ignored.

        The official COCO lists come from masks that lack all but the first polygon of an object.
        """
        table = self.base_map().table.copy()
        table[list(self.novel)] = IGNORE
        return LabelMap(table)

    def _map(self, pairs: dict[int, int]) -> LabelMap:
        return LabelMap.from_pairs({old: pairs.get(old, 0) for old in range(len(self.classes))})


def load_split(spec: str, dataset: str) -> ClassSplit:
    """The split `spec`: a name such as fold1 (data/splits/<dataset>/fold1.yaml) or the path of a YAML file.

    `dataset` is a folder of data/splits or the path of a folder; its classes.yaml names the classes. Raises UserError.
    """
    folder = class_folder(dataset)
    classes = class_names(folder / "classes.yaml")
    path = Path(spec) if Path(spec).suffix in (".yaml", ".yml") else folder / f"{spec}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "classes"))
        raise UserError(f"split={spec}: no such split of {dataset}; use one of {known}, or the path of a YAML file")
    tree = read_yaml(path)
    if not isinstance(tree, dict) or not tree.get("novel") or tree.keys() - {"novel", "base"}:
        raise UserError(f"{path}: expected the key 'novel' (optionally also 'base'), a list of class names or numbers")
    novel = _ascending(tree["novel"], classes, path)
    rest = [i for i in range(1, len(classes)) if i not in novel]
    base = _ascending(tree["base"], classes, path) if "base" in tree else tuple(rest)
    both = sorted(set(base) & set(novel))
    if both:
        raise UserError(f"{path}: class '{classes[both[0]]}' is in base and in novel; keep it in one")
    return ClassSplit(path.stem, classes, base, novel)


def class_folder(dataset: str) -> Path:
    """The folder with classes.yaml: one of data/splits, or the path of a folder; UserError when it has none."""
    folder = SPLITS / dataset if (SPLITS / dataset).is_dir() else Path(dataset)
    if not (folder / "classes.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in SPLITS.glob("*/classes.yaml")))
        raise UserError(f"data.dataset={dataset}: no class list; use one of {known}, or a folder with classes.yaml")
    return folder


def class_names(path: Path) -> tuple[str, ...]:
    listed = read_yaml(path)
    names = tuple(str(name) for name in listed) if isinstance(listed, list) else ()
    if not 2 <= len(set(names)) == len(names) <= IGNORE:
        raise UserError(f"{path}: expected a list of 2 to {IGNORE} different class names, background first")
    return names


def class_ids(listed: Any, classes: tuple[str, ...], path: Path) -> tuple[int, ...]:
    """Class numbers of a list of names or numbers, in its order; UserError that names the file and the entry."""
    if not isinstance(listed, list):
        raise UserError(f"{path}: expected a list of class names or numbers, got {listed!r}")
    ids = []
    for item in listed:
        if isinstance(item, int) and 0 < item < len(classes):
            ids.append(item)
        elif str(item) in classes[1:]:
            ids.append(classes.index(str(item)))
        else:
            close = difflib.get_close_matches(str(item), classes[1:], n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"classes: {', '.join(classes[1:])}"
            raise UserError(f"{path}: unknown class '{item}' (names, or numbers 1-{len(classes) - 1}); {hint}")
    return tuple(ids)


def _ascending(listed: Any, classes: tuple[str, ...], path: Path) -> tuple[int, ...]:
    return tuple(sorted(set(class_ids(listed, classes, path))))
