"""The systems by name: what opens the data of a configuration, and says how its networks are scored."""

from collections.abc import Callable
from typing import Any

from data.contrast.builder import ContrastData
from data.contrast.probes import ProbeData
from data.discovery.builder import DiscoveryData
from data.incremental.builder import IncrementalData
from data.weakshot.builder import WeakShotData
from data.zeroshot.builder import ZeroShotData

DATA: dict[str, Callable[[Any], Any]] = {
    "ncdss": DiscoveryData.open,
    "ssul": IncrementalData.open,
    "maskcontrast": ContrastData.open,
    "probe": ProbeData.open,
    "zs3": ZeroShotData.open,
    "simformer": WeakShotData.open,
}
