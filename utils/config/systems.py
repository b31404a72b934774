"""The systems by name: which schema reads a configuration whose `system:` says so."""

from utils.config.common import Common
from utils.config.maskcontrast import MaskContrastConfig
from utils.config.ncdss import NcdssConfig
from utils.config.probe import ProbeConfig
from utils.config.ssul import SsulConfig

SCHEMAS: dict[str, type[Common]] = {
    "ncdss": NcdssConfig,
    "ssul": SsulConfig,
    "maskcontrast": MaskContrastConfig,
    "probe": ProbeConfig,
}
