"""Class lists and class groups (base and novel, seen and unseen, steps of a task), train ids and label maps."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data.label_map import LabelMap
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.labels import WIDE_IGNORE

SPLITS = Path(__file__).parent / "splits"
PAIRS = {"novel": "base", "unseen": "seen"}  # key of a split file -> name of the first group
UNKNOWN = "unknown"  # value of `novel` in a split file without known novel classes


class ClassList(NamedTuple):
    """Class names of a data set by number in the masks, and the number of background; None without one."""

    names: tuple[str, ...]
    background: int | None = 0


@dataclass(frozen=True)
class ClassGroups:
    """Groups of classes, given by their numbers in the masks. Background is in no group.

    The train id of a class is its position in `order`: background, if the data set has one, then the groups in turn.
    A class of no group is background or, without background, ignored.
    """

    name: str
    classes: tuple[str, ...]  # all class names of the data set, by number
    groups: tuple[tuple[int, ...], ...]
    background: int | None = 0

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Class number in the masks of each train id."""
        first = () if self.background is None else (self.background,)
        return (*first, *(number for group in self.groups for number in group))

    @property
    def names(self) -> list[str]:
        """Class name of each train id."""
        return [self.classes[number] for number in self.order]

    def num_seen(self, group: int) -> int:
        """Number of classes in groups 0 to `group`, including background."""
        return (self.background is not None) + sum(map(len, self.groups[: group + 1]))

    def ids(self, group: int) -> range:
        """Train ids of a group, without background."""
        return range(self.num_seen(group - 1), self.num_seen(group))

    def label_map(self, kept: Iterable[int], ignored: Iterable[int] = ()) -> LabelMap:
        """Maps numbers in the masks to train ids for the groups `kept`, and to the ignored value for `ignored`.

        All other classes become background or, without background, the ignored value.
        """
        numbers = [number for group in kept for number in self.groups[group]]
        ids: dict[int, int | None] = {number: self.order.index(number) for number in numbers}
        ids |= {number: None for group in ignored for number in self.groups[group]}
        rest = None if self.background is None else 0
        return LabelMap.from_pairs({number: ids.get(number, rest) for number in range(len(self.classes))})

    def everything(self) -> LabelMap:
        """The label map that keeps all groups."""
        return self.label_map(range(len(self.groups)))

    def having(self, group: int) -> frozenset[int]:
        """Class numbers of a group."""
        return frozenset(self.groups[group])


def load_split(spec: str, dataset: str) -> ClassGroups:
    """Base and novel (or seen and unseen) classes, each ascending.

    The file lists `novel` or `unseen` classes; the first group is its list `base` or `seen`, by default all others.
    `spec` is a name such as fold1 (data/splits/<dataset>/fold1.yaml) or a path; `dataset` is a folder of data/splits or
    a path. Raises UserError for a missing file, other keys, or a class in both groups.
    """
    folder = class_folder(dataset)
    known = sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "classes")
    path = _find(folder, spec, f"split={spec}: no such split of {dataset}; use one of {', '.join(known)}, or the")
    classes, tree = read_classes(folder / "classes.yaml"), read_yaml(path)
    later = next((key for key in PAIRS if isinstance(tree, dict) and tree.get(key)), None)
    if not later or tree.keys() - {later, PAIRS[later]}:
        raise UserError(
            f"{path}: expected the key 'novel' (optionally also 'base') or 'unseen' (optionally 'seen'), a list of "
            "class names or numbers; or 'novel: unknown'"
        )
    first = PAIRS[later]
    unknown = later == "novel" and tree[later] == UNKNOWN
    novel = () if unknown else _ascending(tree[later], classes, path)
    rest = [number for number in _objects(classes) if number not in novel]
    base = _ascending(tree[first], classes, path) if first in tree else tuple(rest)
    both = sorted(set(base) & set(novel))
    if both:
        raise UserError(f"{path}: class '{classes.names[both[0]]}' is in {first} and in {later}; keep it in one")
    return ClassGroups(path.stem, classes.names, (base, novel), classes.background)


def load_task(spec: str, dataset: str) -> ClassGroups:
    """One group per step, in file order; the key `steps` lists the classes of each step by name or number.

    `spec` is a name such as 15-1 (data/splits/<dataset>/tasks/15-1.yaml) or a path. Raises UserError for a missing
    file, an empty step, or a repeated class.
    """
    folder = class_folder(dataset)
    known = ", ".join(sorted(p.stem for p in (folder / "tasks").glob("*.yaml"))) or "none"
    path = _find(folder / "tasks", spec, f"task={spec}: no such task of {dataset}; it has {known}; or give the")
    classes, tree = read_classes(folder / "classes.yaml"), read_yaml(path)
    listed = tree.get("steps") if isinstance(tree, dict) and tree.keys() == {"steps"} else None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: expected the key 'steps', a list with one list of classes per step")
    steps = tuple(class_numbers(step, classes, path) for step in listed)
    empty = next((number for number, step in enumerate(steps) if not step), None)
    if empty is not None:
        raise UserError(f"{path}: step {empty} has no class; give it one or remove it")
    order = [number for step in steps for number in step]
    twice = next((number for number in order if order.count(number) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: class '{classes.names[twice]}' is in two steps, or twice in one; keep it in one")
    return ClassGroups(path.stem, classes.names, steps, classes.background)


def load_classes(dataset: str) -> ClassList:
    """The classes of a data set. Raises UserError if it has no classes.yaml."""
    return read_classes(class_folder(dataset) / "classes.yaml")


def is_shipped(dataset: str) -> bool:
    """Whether the class list of a data set is one of data/splits."""
    return not Path(dataset).is_absolute() and (SPLITS / dataset).is_dir()


def class_folder(dataset: str) -> Path:
    """The folder of classes.yaml: data/splits/<dataset>, or the path `dataset`. Raises UserError if it has none."""
    folder = SPLITS / dataset if (SPLITS / dataset).is_dir() else Path(dataset)
    if not (folder / "classes.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in SPLITS.glob("*/classes.yaml")))
        raise UserError(f"data.dataset={dataset}: no class list; use one of {known}, or a folder with classes.yaml")
    return folder


def read_classes(path: Path) -> ClassList:
    """Reads a list of names, background first, or a mapping with `classes` and `background: null`.

    Raises UserError for any other content or repeated names.
    """
    listed = read_yaml(path)
    background: int | None = 0
    if isinstance(listed, dict) and listed.keys() == {"classes", "background"} and listed["background"] is None:
        listed, background = listed["classes"], None
    names = tuple(str(name) for name in listed) if isinstance(listed, list) else ()
    if not 2 <= len(set(names)) == len(names) <= WIDE_IGNORE:
        raise UserError(
            f"{path}: expected a list of 2 to {WIDE_IGNORE} different class names, background first; or 'classes: "
            "[...]' and 'background: null' for a data set without one"
        )
    return ClassList(names, background)


def class_numbers(listed: object, classes: ClassList, path: Path | str) -> tuple[int, ...]:
    """Class numbers of a list of names or numbers, in order.

    Raises UserError with `path`, a file or any description of the place, and the unknown entry.
    """
    if not isinstance(listed, list):
        raise UserError(f"{path}: expected a list of class names or numbers, got {listed!r}")
    objects, numbers = _objects(classes), []
    names = [classes.names[number] for number in objects]
    for item in listed:
        if isinstance(item, int) and not isinstance(item, bool) and item in objects:
            numbers.append(item)
        elif str(item) in names:
            numbers.append(classes.names.index(str(item)))
        else:
            close = difflib.get_close_matches(str(item), names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"classes: {', '.join(names)}"
            raise UserError(f"{path}: unknown class '{item}' (names, or numbers {objects[0]}-{objects[-1]}); {hint}")
    return tuple(numbers)


def _objects(classes: ClassList) -> range:
    """Numbers of all classes except background."""
    return range(0 if classes.background is None else 1, len(classes.names))


def class_files(dataset: str, *specs: str, kind: str = "") -> list[Path]:
    """The user's own classes.yaml and split files, or task files with kind="tasks"; shipped files are omitted."""
    folder = class_folder(dataset)
    files = [folder / "classes.yaml", *(_path(folder / kind, spec) for spec in specs)]
    return [path for path in files if SPLITS not in path.parents]


def _path(folder: Path, spec: str) -> Path:
    return Path(spec) if Path(spec).suffix in (".yaml", ".yml") else folder / f"{spec}.yaml"


def _find(folder: Path, spec: str, problem: str) -> Path:
    path = _path(folder, spec)
    if not path.is_file():
        raise UserError(f"{problem} path of a YAML file")
    return path


def _ascending(listed: object, classes: ClassList, path: Path) -> tuple[int, ...]:
    return tuple(sorted(set(class_numbers(listed, classes, path))))
