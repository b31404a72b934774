"""The systems by name: what opens the data of a configuration, and says how its networks are scored."""

from collections.abc import Callable
from typing import Any

from data.contrast import ContrastData
from data.discovery import DiscoveryData
from data.incremental import IncrementalData
from data.probing import ProbeData
from data.weakshot import WeakShotData
from data.zeroshot import ZeroShotData

DATA: dict[str, Callable[[Any], Any]] = {
    "ncdss": DiscoveryData.open,
    "ssul": IncrementalData.open,
    "maskcontrast": ContrastData.open,
    "probe": ProbeData.open,
    "zs3": ZeroShotData.open,
    "simformer": WeakShotData.open,
}
