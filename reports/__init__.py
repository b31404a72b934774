"""What report.py and collect.py show, by system: one module each, and its names in the two dicts here."""

from collections.abc import Callable

from reports import contrast, incremental, probe, weakshot, zeroshot
from reports.common import Page
from reports.discovery import page as discovery
from utils.report.aggregate import ResultTable

# system -> its page, from a configuration
PAGES: dict[str, Callable[..., Page]] = {
    "ncdss": discovery.page,
    "ssul": incremental.page,
    "maskcontrast": contrast.page,
    "probe": probe.page,
    "zs3": zeroshot.page,
    "simformer": weakshot.page,
}
# system -> its table over many runs
TABLES: dict[str, ResultTable] = {
    "ncdss": discovery.TABLE,
    "ssul": incremental.TABLE,
    "maskcontrast": contrast.TABLE,
    "probe": probe.TABLE,
    "zs3": zeroshot.TABLE,
    "simformer": weakshot.TABLE,
}
