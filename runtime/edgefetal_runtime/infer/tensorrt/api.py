"""Finding TensorRT: any module with its Python API will do."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_devices.possible import OLDEST_TENSORRT
from edgefetal_devices.versions import parsed_version, written

# JetPack's own or the wheel's; TensorRT-RTX of desktop cards; and what the wheels of TensorRT-RTX are called.
MODULES: Final = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
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
    def numbers(self) -> tuple[int, ...] | None:
        """The version to compare with others; None for TensorRT-RTX, whose versions count from 1."""
        return None if self.is_rtx else parsed_version(self.version) or ()

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which can build for GPUs that are not here."""
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
        if found.numbers is None or found.numbers >= OLDEST_TENSORRT:
            return found
        least = written(OLDEST_TENSORRT)
        reasons.append(f"{name} {found.version} is older than {least}, the oldest that edgefetal builds engines with")
    why = "; ".join(reasons) or "it is not installed"
    message = (
        f"TensorRT cannot be used here: {why}. On a Jetson use JetPack's own (a virtual environment with "
        "--system-site-packages); `edgefetal doctor` says what is wrong."
    )
    raise EnvironmentLacksError(message)
