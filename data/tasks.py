"""Class-incremental tasks: which classes each step learns, the label maps that follow, and the images of a step."""

import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from data.class_split import SPLITS, class_folder, class_ids, class_names
from data.label_map import LabelMap
from utils.config.strict_yaml import read_yaml
from utils.errors import UserError

Setting = Literal["overlap", "disjoint", "discovered"]
Presence = list[tuple[str, frozenset[int]]]  # (image id, numbers of the foreground classes in its mask)


@dataclass(frozen=True)
class Task:
    """Classes by step, as their numbers in the masks; background 0 belongs to step 0 and is left out.

    The train id of a class is its position in the concatenation of all steps, from 1. A class of no step counts as
    background everywhere.
    """

    name: str
    classes: tuple[str, ...]  # of the data set, by number
    steps: tuple[tuple[int, ...], ...]

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @cached_property
    def order(self) -> list[int]:
        """Number in the masks of each train id."""
        return [0, *(number for step in self.steps for number in step)]

    @property
    def names(self) -> list[str]:
        """Class name of each train id."""
        return [self.classes[number] for number in self.order]

    def num_seen(self, step: int) -> int:
        """Classes learned up to and with a step, background included."""
        return 1 + sum(map(len, self.steps[: step + 1]))

    def new_ids(self, step: int) -> range:
        """Train ids that a step adds; step 0 adds background, too."""
        return range(self.num_seen(step - 1) if step else 0, self.num_seen(step))

    def step_map(self, step: int) -> LabelMap:
        """Labels of the training images of a step: its own classes; past and future ones are background."""
        return self._map(self.steps[step])

    def seen_map(self, step: int) -> LabelMap:
        """Labels of exemplars: every class up to a step; future ones are background."""
        return self._map(self.order[1 : self.num_seen(step)])

    def full_map(self) -> LabelMap:
        """Labels of the final test: every class of the task; those of later steps are cut off when counting."""
        return self._map(self.order[1:])

    def _map(self, kept: tuple[int, ...] | list[int]) -> LabelMap:
        ids = {number: self.order.index(number) for number in kept}
        return LabelMap.from_pairs({number: ids.get(number, 0) for number in range(len(self.classes))})

    def select(self, presence: Presence, step: int, setting: Setting) -> list[str]:
        """Images of a step: with one of its classes; when disjoint, without any class of a later step.

        The official code takes the classes below the step's smallest number for the earlier ones, which is the same for
        tasks in natural order.
        """
        own = frozenset(self.steps[step])
        allowed = frozenset(self.order[: self.num_seen(step)])
        later = frozenset(self.order) - allowed
        return [name for name, found in presence if found & own and not (setting == "disjoint" and found & later)]


def find_step(task: Task, heads: list[int]) -> tuple[int, bool] | None:
    """(step, with unknown class) of a network with these outputs per head; None when it is not of this task."""
    for unknown in (True, False):
        for step in range(task.num_steps):
            if head_sizes(task, step, unknown) == heads:
                return step, unknown
    return None


def load_task(spec: str, dataset: str) -> Task:
    """The task `spec`: a name such as 15-1 (data/splits/<dataset>/tasks/15-1.yaml) or the path of a YAML file.

    Its key `steps` lists the classes of each step by name or number. Raises UserError.
    """
    folder = class_folder(dataset)
    classes = class_names(folder / "classes.yaml")
    path = Path(spec) if Path(spec).suffix in (".yaml", ".yml") else folder / "tasks" / f"{spec}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (folder / "tasks").glob("*.yaml"))) or "none"
        raise UserError(f"task={spec}: no such task of {dataset}; it has {known}; or give the path of a YAML file")
    tree = read_yaml(path)
    listed = tree.get("steps") if isinstance(tree, dict) and tree.keys() == {"steps"} else None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: expected the key 'steps', a list with one list of classes per step")
    steps = tuple(class_ids(step, classes, path) for step in listed)
    empty = next((number for number, step in enumerate(steps) if not step), None)
    if empty is not None:
        raise UserError(f"{path}: step {empty} has no class; give it one or remove it")
    order = [number for step in steps for number in step]
    twice = next((number for number in order if order.count(number) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: class '{classes[twice]}' is in two steps, or twice in one; keep it in one")
    return Task(path.stem, classes, steps)


def shipped_presence(dataset: str, part: Literal["train", "val"]) -> Presence:
    """Classes of every official image, in the order of the official lists; UserError when none are shipped."""
    path = SPLITS / dataset / "tasks" / f"{part}_classes.txt.gz"
    if not path.is_file():
        raise UserError(f"data.dataset={dataset}: no image lists are shipped; set data.train_list and data.val_list")
    lines = (line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines())
    return [(name, frozenset(1 + int(number) for number in numbers)) for name, *numbers in lines]


def head_sizes(task: Task, step: int, unknown: bool) -> list[int]:
    """Outputs of each head after a step: unknown, background, C0, C1, ..., or background with C0, C1, ..."""
    first, *later = (len(classes) for classes in task.steps[: step + 1])
    return [1, 1, first, *later] if unknown else [1 + first, *later]
