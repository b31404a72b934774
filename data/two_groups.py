"""Data of a class split with two groups (base and novel, or seen and unseen) that share one label space."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from data.classes import ClassGroups, class_files, load_split
from data.protocol import SystemData
from data.pseudo_labels import Origin, PseudoLabels
from data.source import C, DataContext
from utils.errors import UserError
from utils.labels import IGNORE, is_wide
from utils.measure.protocol import Classes
from utils.text import few

LATER = 1  # group of a class split: novel or unseen classes
Data = TypeVar("Data", bound="TwoGroups")


@dataclass(frozen=True)
class TwoGroups(SystemData[C], Generic[C]):
    """Class split and data root of a run; label maps and output classes of the split.

    Train ids are positions in `groups.order`: background, if it is a class, then all classes of both groups by number.
    Background belongs to the first group; with data.background=ignore its pixels are ignored. Labels have 8 bits.
    """

    context: DataContext[C]
    groups: ClassGroups  # one group: every class of the split
    later: tuple[int, ...]  # train ids of the second group
    background: int | None  # number in the masks, even if it is ignored

    kind: ClassVar[str]  # what the classes of the second group are called
    labels_made_by: ClassVar[str]  # command that makes pseudo-labels

    @classmethod
    def of(cls: type[Data], context: DataContext[C]) -> Data:
        """Opens the split. Raises UserError if it does not fit the data set. Image files are located on first use."""
        cfg: Any = context.cfg
        split = load_split(cfg.split, cfg.data.dataset)
        objects = tuple(sorted(number for group in split.groups for number in group))
        background = split.background if cfg.data.background == "class" else None
        groups = replace(split, groups=(objects,), background=background)
        if is_wide(len(groups.order)):
            raise UserError(f"split={cfg.split}: {len(groups.order)} classes; training takes at most {IGNORE}")
        later = tuple(sorted(groups.order.index(number) for number in split.groups[LATER]))
        context.files.add(class_files(cfg.data.dataset, cfg.split))
        return cls(context, groups, later, split.background)

    @property
    def cfg(self) -> C:
        return self.context.cfg

    @property
    def names(self) -> list[str]:
        """Class name of each train id."""
        return self.groups.names

    @property
    def num_classes(self) -> int:
        return len(self.groups.order)

    @property
    def first(self) -> tuple[int, ...]:
        """Train ids of the first group, including background if it is a class."""
        return tuple(number for number in range(self.num_classes) if number not in self.later)

    def train_ids_of(self, first_only: bool = False) -> dict[int, int | None]:
        """Number in the masks -> train id, or None if ignored; `first_only` also ignores the second group."""
        everything = self.groups.everything()
        found = {number: everything.new_value(number) for number in range(len(self.groups.classes))}
        return {number: None if first_only and new in self.later else new for number, new in found.items()}

    def output_classes(self, _metrics: dict[str, Any]) -> Classes:
        """(class number in the masks, name) of each output."""
        return list(zip(self.groups.order, self.names, strict=True))

    def pseudo_labels(self, folder: Path) -> PseudoLabels:
        """A folder of pseudo-labels of these classes, values train ids."""
        later = tuple(self.names[number] for number in self.later)
        return PseudoLabels(folder, Origin(self.groups.name, tuple(self.names), later), self.labels_made_by)

    def check_split(self, path: Path, config: Mapping[str, Any]) -> None:
        """Raises UserError if the checkpoint was trained with other novel (unseen) classes.

        No check without a configuration (official files) or if its split file no longer exists.
        """
        try:
            theirs = load_split(str(config["split"]), str(config["data"]["dataset"]))
        except (KeyError, UserError):
            return
        other, own = {theirs.classes[n] for n in theirs.groups[LATER]}, {self.names[n] for n in self.later}
        if other != own:
            cfg: Any = self.cfg
            raise UserError(
                f"{path}: trained with split={config['split']}, {self.kind} {few(other)}; but split={cfg.split} has "
                f"{self.kind} {few(own)}; give a network of this split"
            )
