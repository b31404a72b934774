"""The page of report.py and the table of collect.py for each system, imported when they are asked for."""

from typing import TYPE_CHECKING

from utils.config.common import Common
from utils.report.aggregate import ResultTable
from utils.systems import SYSTEMS, resolve

if TYPE_CHECKING:  # a page imports the data sets, and with them torch; a table does not
    from reports.page import Page


def open_page(cfg: Common) -> "Page":
    """The page of a configuration's finished stages. Raises UserError if none has finished."""
    page: Page = resolve(SYSTEMS[cfg.system].page)(cfg)
    return page


def result_table_of(system: str) -> ResultTable:
    """Columns and published values of a system's table over runs."""
    table: ResultTable = resolve(SYSTEMS[system].table)
    return table
