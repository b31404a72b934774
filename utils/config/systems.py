"""The systems by name: which schema reads a configuration whose `system:` says so."""

from typing import Any

from utils.config.common import Common
from utils.config.contrast import ContrastConfig
from utils.config.discovery import DiscoveryConfig
from utils.config.incremental import IncrementalConfig
from utils.config.probe import ProbeConfig
from utils.config.weakshot import WeakShotConfig
from utils.config.zeroshot import ZeroShotConfig

SCHEMAS: dict[str, type[Common]] = {
    "ncdss": DiscoveryConfig,
    "ssul": IncrementalConfig,
    "maskcontrast": ContrastConfig,
    "probe": ProbeConfig,
    "zs3": ZeroShotConfig,
    "simformer": WeakShotConfig,
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
