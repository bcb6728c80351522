"""The onnxruntime back end: runs everywhere, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import onnxruntime

from edgefetal_devices.errors import BundleError
from edgefetal_runtime.infer.cores import usable_cores

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ERRORS_ONLY = 3


class _Graph:
    """A graph loaded into an onnxruntime session."""

    def __init__(self, name: str, session: onnxruntime.InferenceSession, lanes: int) -> None:
        # A session may be run by any number of threads at a time.
        self.name, self.lanes = name, lanes
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name."""
        values = self._session.run(self._outputs, {self._input: image})
        return dict(zip(self._outputs, cast("list[npt.NDArray[np.float32]]", values), strict=True))


def open_graph(model: bytes, threads: int | None, lanes: int = 1) -> _Graph:
    """Load a graph from verified bytes; files beside it are never read.

    Raises:
        BundleError: onnxruntime does not accept the graph.
    """
    return _opened("onnxruntime", onnxruntime.SessionOptions(), model, threads, lanes)


def open_as_written(model: bytes, threads: int | None, lanes: int = 1) -> _Graph:
    """Load a graph as `open_graph` does, to compute it node by node as it is written.

    onnxruntime rewrites quantised layers for its own whole-number kernels. Of a graph that was quantised for another
    back end it would show what no one ships: with scales in FP16 it quantises biases that were float, with the product
    of two scales, which FP16 cannot hold.

    Raises:
        BundleError: onnxruntime does not accept the graph.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return _opened("onnxruntime-as-written", options, model, threads, lanes)


def _opened(name: str, options: onnxruntime.SessionOptions, model: bytes, threads: int | None, lanes: int) -> _Graph:
    options.log_severity_level = _ERRORS_ONLY
    if threads is not None or lanes > 1:
        # Each lane computes in the thread that asks; the pool beside them is one for all, and smaller than its number.
        options.intra_op_num_threads = max(1, (threads or usable_cores()) - lanes + 1)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # onnxruntime's exception classes derive from Exception alone and differ between versions.
    except Exception as error:
        message = f"onnxruntime does not accept the bundle's graph ({error}); build the bundle anew."
        raise BundleError(message) from error
    return _Graph(name, session, lanes)
