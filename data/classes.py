"""Groups of classes that are learned or treated apart (base and novel, the steps of a task, seen and unseen), the
order in which a network has them, and the label maps that follow."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from data.label_map import LabelMap
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError
from utils.labels import WIDE_IGNORE

SPLITS = Path(__file__).parent / "splits"
PAIRS = {"novel": "base", "unseen": "seen"}  # key of a split file -> the group that holds all other classes
UNKNOWN = "unknown"  # in the place of the list of novel classes


class ClassList(NamedTuple):
    """The classes of a data set by their number in the masks; `background` is that of no object, None without one."""

    names: tuple[str, ...]
    background: int | None = 0


@dataclass(frozen=True)
class ClassGroups:
    """Classes in groups, as their numbers in the masks. Background belongs to none of them.

    The train id of a class is its position in `order`: background first, where the data set has one, then the groups
    one after the other. A class of no group counts as background, or, where there is none, as ignored.
    """

    name: str
    classes: tuple[str, ...]  # of the data set, by number
    groups: tuple[tuple[int, ...], ...]
    background: int | None = 0

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Number in the masks of each train id."""
        first = () if self.background is None else (self.background,)
        return (*first, *(number for group in self.groups for number in group))

    @property
    def names(self) -> list[str]:
        """Class name of each train id."""
        return [self.classes[number] for number in self.order]

    def num_seen(self, group: int) -> int:
        """Classes up to and with a group, background included."""
        return (self.background is not None) + sum(map(len, self.groups[: group + 1]))

    def ids(self, group: int) -> range:
        """Train ids of a group; background is in none."""
        return range(self.num_seen(group - 1), self.num_seen(group))

    def label_map(self, kept: Iterable[int], ignored: Iterable[int] = ()) -> LabelMap:
        """Numbers in the masks to train ids: classes of the groups `kept`; those of `ignored` are not looked at.

        All others are background (novel, past, future classes), or ignored where the data set has none.
        """
        numbers = [number for group in kept for number in self.groups[group]]
        ids: dict[int, int | None] = {number: self.order.index(number) for number in numbers}
        ids |= {number: None for group in ignored for number in self.groups[group]}
        rest = None if self.background is None else 0
        return LabelMap.from_pairs({number: ids.get(number, rest) for number in range(len(self.classes))})

    def everything(self) -> LabelMap:
        """The label map that keeps every group."""
        return self.label_map(range(len(self.groups)))

    def having(self, group: int) -> frozenset[int]:
        """Numbers of a group, to look for in images."""
        return frozenset(self.groups[group])


def load_split(spec: str, dataset: str) -> ClassGroups:
    """Two groups, ascending: the file `spec` lists `novel` or `unseen` classes; base, or seen, are its own list or all
    others.

    `spec` is a name such as fold1 (data/splits/<dataset>/fold1.yaml) or the path of a YAML file, `dataset` a folder of
    data/splits or the path of a folder; its classes.yaml names the classes. Raises UserError.
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
    """A group per step, in the order of the file: its key `steps` lists the classes of each step by name or number.

    `spec` is a name such as 15-1 (data/splits/<dataset>/tasks/15-1.yaml) or the path of a YAML file. Raises UserError.
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
    """The classes of a data set; UserError when it has no classes.yaml."""
    return read_classes(class_folder(dataset) / "classes.yaml")


def is_shipped(dataset: str) -> bool:
    """Whether a data set is one of data/splits, and nobody's own."""
    return not Path(dataset).is_absolute() and (SPLITS / dataset).is_dir()


def class_folder(dataset: str) -> Path:
    """The folder with classes.yaml: one of data/splits, or the path of a folder; UserError when it has none."""
    folder = SPLITS / dataset if (SPLITS / dataset).is_dir() else Path(dataset)
    if not (folder / "classes.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in SPLITS.glob("*/classes.yaml")))
        raise UserError(f"data.dataset={dataset}: no class list; use one of {known}, or a folder with classes.yaml")
    return folder


def read_classes(path: Path) -> ClassList:
    """A list of names with background first, or `classes:` and `background: null` where every pixel is of a class."""
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


def class_numbers(listed: Any, classes: ClassList, path: Path | str) -> tuple[int, ...]:
    """Class numbers of a list of names or numbers, in its order; UserError that names `path`, or where it is, and the
    entry.
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
    """Numbers of all classes but background."""
    return range(0 if classes.background is None else 1, len(classes.names))


def class_files(dataset: str, *specs: str, kind: str = "") -> list[Path]:
    """The files of one's own that tell the classes: of the data set, and of splits, or with kind="tasks" of tasks."""
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


def _ascending(listed: Any, classes: ClassList, path: Path) -> tuple[int, ...]:
    return tuple(sorted(set(class_numbers(listed, classes, path))))
