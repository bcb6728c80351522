"""The back ends that can run a bundle's graph: one table, each imported when it is asked for."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from edgefetal_devices.errors import EnvironmentLacksError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt


class Backend(Protocol):
    """A graph that is ready to run."""

    @property
    def name(self) -> str:
        """Return the back end's name in the table."""

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the graph's outputs by name."""


@dataclass(frozen=True)
class BackendEntry:
    """One row of the table.

    Args:
        name: name on the command line.
        module: module that offers `open_graph(model: bytes, threads: int | None) -> Backend`.
        needs: what must be installed, for the message when it is not.
        auto_on: processors on which `auto` takes it, as `platform.machine()` calls them; None for all. By its name it
            is taken anywhere.
    """

    name: str
    module: str
    needs: str
    auto_on: tuple[str, ...] | None = None


# In the order in which `auto` tries them.
TABLE = (
    BackendEntry(
        "openvino",
        "edgefetal_runtime.infer.openvino_backend",
        "pip install 'edgefetal[openvino]'",
        # A process that used it and then trained a network was seen to crash; until that is understood it is asked for.
        auto_on=(),
    ),
    BackendEntry("onnxruntime", "edgefetal_runtime.infer.onnxruntime_backend", "pip install onnxruntime"),
)


def open_backend(name: str, model: bytes, threads: int | None = None) -> Backend:
    """Load a graph into a back end.

    Args:
        name: a name of the table, or `auto` for the first that is meant for this processor and is available.
        model: the ONNX graph, whole.
        threads: CPU threads, or None for the back end's own choice.

    Raises:
        InputError: the table has no such name.
        EnvironmentLacksError: the back end, or with `auto` every one, is unavailable; says why.
    """
    entries = [entry for entry in TABLE if name == entry.name or (name == "auto" and _auto_takes(entry))]
    if not entries:
        message = f"There is no back end {name!r}; choose one of auto, {', '.join(e.name for e in TABLE)}."
        raise InputError(message)
    reasons = []
    for entry in entries:
        try:
            module = importlib.import_module(entry.module)
        # A driver library that does not load raises OSError, not ImportError.
        except (ImportError, OSError) as error:
            reasons.append(f"{entry.name}: {error}; {entry.needs}")
            continue
        return cast("Callable[[bytes, int | None], Backend]", module.open_graph)(model, threads)
    raise EnvironmentLacksError("No back end can run here. " + " | ".join(reasons))


def _auto_takes(entry: BackendEntry) -> bool:
    return entry.auto_on is None or platform.machine() in entry.auto_on
