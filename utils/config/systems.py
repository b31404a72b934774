"""The systems by name: which schema reads a configuration whose `system:` says so."""

from typing import Any

from utils.config.common import Common
from utils.config.maskcontrast import MaskContrastConfig
from utils.config.ncdss import NcdssConfig
from utils.config.probe import ProbeConfig
from utils.config.simformer import SimformerConfig
from utils.config.ssul import SsulConfig
from utils.config.zs3 import Zs3Config

SCHEMAS: dict[str, type[Common]] = {
    "ncdss": NcdssConfig,
    "ssul": SsulConfig,
    "maskcontrast": MaskContrastConfig,
    "probe": ProbeConfig,
    "zs3": Zs3Config,
    "simformer": SimformerConfig,
}


def systems_by_keys(tree: dict[str, Any]) -> list[str]:
    """The systems that know most of a configuration's keys, beside the common ones; [] when none knows any.

    For configurations from before the key `system`, and for hints: everywhere else `system` alone tells.
    """
    shared = {
        name: len(tree.keys() & (schema.model_fields.keys() - Common.model_fields.keys()))
        for name, schema in SCHEMAS.items()
    }
    most = max(shared.values())
    return [name for name, count in shared.items() if count == most] if most else []
