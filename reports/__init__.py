"""What report.py and collect.py show, by system: one module each, and its names in the two dicts here."""

from collections.abc import Callable

from reports import maskcontrast, ncdss, probe, simformer, ssul, zs3
from reports.common import Page
from utils.report.aggregate import ResultTable

# system -> its page, from a configuration
PAGES: dict[str, Callable[..., Page]] = {
    "ncdss": ncdss.page,
    "ssul": ssul.page,
    "maskcontrast": maskcontrast.page,
    "probe": probe.page,
    "zs3": zs3.page,
    "simformer": simformer.page,
}
# system -> its table over many runs
TABLES: dict[str, ResultTable] = {
    "ncdss": ncdss.TABLE,
    "ssul": ssul.TABLE,
    "maskcontrast": maskcontrast.TABLE,
    "probe": probe.TABLE,
    "zs3": zs3.TABLE,
    "simformer": simformer.TABLE,
}
