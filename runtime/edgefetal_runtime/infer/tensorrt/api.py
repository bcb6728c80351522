"""Finding TensorRT: any module with its Python API will do."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

from edgefetal_devices.errors import EnvironmentLacksError

# JetPack's own or the wheel's; TensorRT-RTX of desktop cards; and what the wheels of TensorRT-RTX are called.
MODULES: Final = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
# From here on a network may be strongly typed and its layers quantised by explicit nodes alone, as in every later one.
OLDEST: Final = (10, 3)
_RTX: Final = "tensorrt_rtx"


@dataclass(frozen=True)
class TensorRT:
    """A module with TensorRT's Python API.

    Args:
        module: the module; it has no type information.
        name: `tensorrt` or `tensorrt_rtx`.
        version: as the module says it.
    """

    module: Any
    name: str
    version: str

    @property
    def title(self) -> str:
        """The module with its version, for people and for telling whether it is still the same."""
        return f"{self.name} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, whose versions count from 1 and whose engines are for named architectures."""
        return self.name == _RTX


def load_tensorrt() -> TensorRT:
    """Return the first module with TensorRT's API that loads here and is new enough.

    Raises:
        EnvironmentLacksError: there is none; says of each why.
    """
    reasons = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
            found = TensorRT(module, _RTX if name.startswith(_RTX) else name, str(module.__version__))
        except ModuleNotFoundError as error:
            if error.name != name:
                reasons.append(f"{name} is installed but does not load ({error})")
            continue
        # A driver library that is missing on the host raises OSError, and a half-installed module what it likes.
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{name} is installed but does not load ({error})")
            continue
        if found.is_rtx or version_of(found.version) >= OLDEST:
            return found
        least = ".".join(map(str, OLDEST))
        reasons.append(f"{name} {found.version} is older than {least}, the first that types a network strongly")
    why = "; ".join(reasons) or "it is not installed"
    message = (
        f"TensorRT cannot be used here: {why}. On a Jetson use JetPack's own (a virtual environment with "
        "--system-site-packages); `edgefetal doctor` says what is wrong."
    )
    raise EnvironmentLacksError(message)


def version_of(text: str) -> tuple[int, ...]:
    """Read a version's leading numbers, as (10, 3, 0, 30) of `10.3.0.30`."""
    parts = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)
