"""The OpenVINO back end: x86 processors, where its whole-number kernels are quicker than onnxruntime's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openvino

from edgefetal_devices.errors import BundleError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class _Graph:
    """A graph compiled for the processor."""

    name = "openvino"

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = [output.get_any_name() for output in compiled.outputs]

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name."""
        # Without copies the next run would write over what this one answered.
        answers = self._request.infer([image], share_outputs=False)
        return {name: answers[place] for place, name in enumerate(self._outputs)}


def open_graph(model: bytes, threads: int | None) -> _Graph:
    """Load a graph from verified bytes; files beside it are never read.

    Raises:
        BundleError: OpenVINO does not accept the graph.
    """
    # Left to itself OpenVINO computes float layers in 16 bits where the processor can.
    options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        return _Graph(core.compile_model(core.read_model(model), "CPU", options))
    except RuntimeError as error:
        # The first lines name its own source files; the last says what is wrong.
        why = str(error).strip().rpartition("\n")[2]
        message = f"openvino does not accept the bundle's graph ({why}); build the bundle anew."
        raise BundleError(message) from error
