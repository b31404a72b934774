"""The interface that the data builder of every system implements, and how it is opened."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from data.classes import load_classes
from data.label_map import LabelMap
from data.lists import image_list
from data.source import C, DataContext, ImageSet, ListReader
from utils.checkpoint import read_list
from utils.config.common import Common
from utils.measure.protocol import EvalProtocol
from utils.systems import SYSTEMS, resolve

Data = TypeVar("Data", bound="SystemData")


class Photograph(NamedTuple):
    """An image file. If its object was clustered: the fit to its cluster in [-1, 1], and the file of its pseudo-label.

    The values of a pseudo-label are outputs of the network.
    """

    path: Path
    certainty: float | None = None
    pseudo: Path | None = None


class NewClasses(NamedTuple):
    """Classes that the data set does not have: names, word vectors [n, D], and those of the known classes [C, D]."""

    names: list[str]
    vectors: torch.Tensor
    known: torch.Tensor


class TrainedNetwork(Protocol):
    """The properties of a network that an evaluation depends on; see models.segmenter.Segmenter."""

    @property
    def path(self) -> Path: ...

    @property
    def num_outputs(self) -> int: ...

    @property
    def classes(self) -> list[tuple[int, str]]:
        """Class number in the masks and name of each output; empty if the file does not know them."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Outputs of each head; empty for a network with one classifier."""

    @property
    def flavour(self) -> str:
        """Kind of the weights file."""


class SystemData(Protocol[C]):
    """Images, labels and evaluation of one system.

    A builder subclasses it, defines `context`, `open` and `evaluation`, and overrides what differs from the defaults.
    """

    context: DataContext[C]  # data root, layout and configuration

    @classmethod
    def open(cls: type[Data], cfg: C) -> Data:
        """The data of a configuration. Raises UserError if classes, lists or folders do not fit."""

    @classmethod
    def reads(cls, context: DataContext[C]) -> Iterator[ImageSet]:
        """Every image list that the stages of a configuration read. Reads lists, but opens no image and no mask.

        Default: `data.train_list` and `data.val_list` with masks of the data set's classes.
        """
        return iter(labelled_sets(context))

    @classmethod
    def notes(cls, cfg: C) -> Iterator[str]:
        """Further lines for `prepare_data.py check`, if the data have no fault."""
        return iter(())

    def evaluation(self, network: TrainedNetwork) -> EvalProtocol:
        """How eval.py scores a network. Raises UserError if its outputs do not fit the classes."""

    def unlabelled_photographs(self) -> list[Photograph]:
        """Training images without labels of some class, for export.py; none by default."""
        return []

    def own_classes(self) -> NewClasses | None:
        """Classes that the configuration adds to those of the data set; None by default."""
        return None


def labelled_sets(context: DataContext[C]) -> tuple[ImageSet, ImageSet]:
    """The training and the validation list with masks of all classes."""
    d, layout = context.cfg.data, context.layout
    names = dict(enumerate(load_classes(d.dataset).names))
    same = LabelMap.from_pairs({number: number for number in names})
    train, val = (image_list(context, name) for name in (d.train_list or "trainaug", d.val_list or layout.val_list))
    return (
        ImageSet("train", context, train, label_map=same, class_names=names),
        ImageSet("val", context, val, label_map=same, validation=True),
    )


def builder_of(cfg: Common) -> type[SystemData[Any]]:
    """The data builder of a configuration's system."""
    builder: type[SystemData[Any]] = resolve(SYSTEMS[cfg.system].data)
    return builder


def open_data(cfg: Common) -> SystemData[Any]:
    """The data of a configuration. Raises UserError if classes, lists or folders do not fit."""
    return builder_of(cfg).open(cfg)


def read_sets(cfg: Common, read: ListReader = read_list) -> Iterator[ImageSet]:
    """`SystemData.reads` of a configuration; `read` reads the files of image lists."""
    return builder_of(cfg).reads(replace(DataContext.open(cfg), read_list=read))
