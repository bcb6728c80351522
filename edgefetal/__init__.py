"""edgefetal: fetal-ultrasound networks on small computers, with no internet and no sonographer.

The names below are the public API; each is imported when it is first used, so that `import edgefetal` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import EdgeFetalError
    from edgefetal_runtime.exam.folder import write_exam
    from edgefetal_runtime.exam.pipeline import examine
    from edgefetal_runtime.exam.record import Exam
    from edgefetal_runtime.growth.assess import GrowthReport, assess
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.growth.measures import Biometry
    from edgefetal_runtime.infer.bundle import Bundle, load_bundle
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.infer.network import Network, load_network
    from edgefetal_runtime.scale import NoScale, Scale
    from edgefetal_runtime.sources.scale_wish import ScaleWish
    from edgefetal_runtime.sources.source import open_source

__all__ = [
    "Biometry",
    "Bundle",
    "EdgeFetalError",
    "Exam",
    "GestationalAge",
    "GrowthReport",
    "Network",
    "NoScale",
    "Scale",
    "ScaleWish",
    "assess",
    "bundle_folder",
    "examine",
    "load_bundle",
    "load_network",
    "open_for_clinic",
    "open_source",
    "write_exam",
]

_HOMES = {
    "Biometry": "edgefetal_runtime.growth.measures",
    "Bundle": "edgefetal_runtime.infer.bundle",
    "EdgeFetalError": "edgefetal_devices.errors",
    "Exam": "edgefetal_runtime.exam.record",
    "GestationalAge": "edgefetal_runtime.growth.gestation",
    "GrowthReport": "edgefetal_runtime.growth.assess",
    "Network": "edgefetal_runtime.infer.network",
    "NoScale": "edgefetal_runtime.scale",
    "Scale": "edgefetal_runtime.scale",
    "ScaleWish": "edgefetal_runtime.sources.scale_wish",
    "assess": "edgefetal_runtime.growth.assess",
    "bundle_folder": "edgefetal.starter",
    "examine": "edgefetal_runtime.exam.pipeline",
    "load_bundle": "edgefetal_runtime.infer.bundle",
    "load_network": "edgefetal_runtime.infer.network",
    "open_for_clinic": "edgefetal_runtime.infer.golden",
    "open_source": "edgefetal_runtime.sources.source",
    "write_exam": "edgefetal_runtime.exam.folder",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
