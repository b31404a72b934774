"""The interface that the data builder of every system implements, and how it is opened."""

from typing import Any, Protocol

from data.source import DataContext
from utils.config.common import Common
from utils.measure import protocol
from utils.systems import SYSTEMS, resolve


class SystemData(Protocol):
    """Images, labels and evaluation of one system."""

    @property
    def context(self) -> DataContext[Any]:
        """Data root, layout and configuration."""

    def evaluation(self, network: Any) -> protocol.Protocol:
        """How eval.py scores a segmenter. Raises UserError if its outputs do not fit the classes."""


def open_data(cfg: Common) -> SystemData:
    """The data of a configuration, by its system."""
    data: SystemData = resolve(SYSTEMS[cfg.system].data).open(cfg)
    return data
