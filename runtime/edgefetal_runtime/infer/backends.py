"""The back ends that can run a bundle's graph: one table, each imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from edgefetal_devices.errors import EnvironmentLacksError, InputError
from edgefetal_runtime.infer.child import open_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt


class Backend(Protocol):
    """A graph that is ready to run."""

    @property
    def name(self) -> str:
        """Return the back end's name in the table."""

    @property
    def lanes(self) -> int:
        """Return how many threads may run it side by side."""

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the graph's outputs by name."""


@dataclass(frozen=True)
class BackendEntry:
    """One row of the table.

    Args:
        name: name on the command line.
        module: module that offers `opens`.
        needs: what must be installed, for the message when it is not.
        opens: name of its function `(model: bytes, threads: int | None, lanes: int) -> Backend`; one whose runs must
            follow one another takes no lanes for one.
        auto_on: processors on which `auto` takes it, as `platform.machine()` calls them; None for all. By its name it
            is taken anywhere.
        without_torch: whether it gets a process of its own where torch is installed, which might come into this one.
    """

    name: str
    module: str
    needs: str
    opens: str = "open_graph"
    auto_on: tuple[str, ...] | None = None
    without_torch: bool = False


# What graphs of other back ends are judged on where these are not at hand.
AS_WRITTEN: Final = "onnxruntime-as-written"

# In the order in which `auto` tries them.
TABLE = (
    BackendEntry(
        "tensorrt",
        "edgefetal_runtime.infer.tensorrt.unfinished",
        "edgefetal finish BUNDLE",
        # A folder holds a graph; the engine comes with a finished bundle, which takes it without asking here.
        auto_on=(),
    ),
    BackendEntry(
        "openvino",
        "edgefetal_runtime.infer.openvino_backend",
        "pip install 'edgefetal[openvino]'",
        # A process that used it and then trained a network was seen to crash, why is not known.
        auto_on=(),
        without_torch=True,
    ),
    BackendEntry("onnxruntime", "edgefetal_runtime.infer.onnxruntime_backend", "pip install onnxruntime"),
    BackendEntry(
        AS_WRITTEN,
        "edgefetal_runtime.infer.onnxruntime_backend",
        "pip install onnxruntime",
        opens="open_as_written",
        auto_on=(),
    ),
)


def open_backend(name: str, model: bytes, threads: int | None = None, lanes: int = 1) -> Backend:
    """Load a graph into a back end.

    Args:
        name: a name of the table, or `auto` for the first that is meant for this processor and is available.
        model: the ONNX graph, whole.
        threads: CPU threads, or None for the back end's own choice.
        lanes: inputs that are to be run side by side, which share the threads; see `Backend.lanes` for what came of it.

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
            return _opened(entry, model, threads, lanes)
        # A driver library that does not load raises OSError, not ImportError.
        except (ImportError, OSError) as error:  # noqa: PERF203 - the table has a handful of rows
            reasons.append(f"{entry.name}: {error}; {entry.needs}")
    raise EnvironmentLacksError("No back end can run here. " + " | ".join(reasons))


def _opened(entry: BackendEntry, model: bytes, threads: int | None, lanes: int) -> Backend:
    if entry.without_torch and importlib.util.find_spec("torch") is not None:
        return open_in_child(entry.name, entry.module, model, threads)
    opens = getattr(importlib.import_module(entry.module), entry.opens)
    return cast("Callable[[bytes, int | None, int], Backend]", opens)(model, threads, lanes)


def _auto_takes(entry: BackendEntry) -> bool:
    return entry.auto_on is None or platform.machine() in entry.auto_on
