"""What report.py and collect.py show of each system."""

from reports.common import Page
from utils.config.common import Common
from utils.report.aggregate import ResultTable
from utils.systems import SYSTEMS, resolve


def open_page(cfg: Common) -> Page:
    """The page of a configuration's finished stages. Raises UserError if none has finished."""
    page: Page = resolve(SYSTEMS[cfg.system].page)(cfg)
    return page


def result_table_of(system: str) -> ResultTable:
    """Columns and published values of a system's table over runs."""
    table: ResultTable = resolve(SYSTEMS[system].table)
    return table
