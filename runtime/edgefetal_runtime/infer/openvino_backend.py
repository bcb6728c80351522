"""The OpenVINO back end: x86 processors, where its whole-number kernels are quicker than onnxruntime's."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

import openvino

from edgefetal_devices.errors import BundleError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class CompiledGraph:
    """A graph compiled for the processor.

    Attributes:
        name: `openvino`.
        lanes: how many threads may run it side by side.
    """

    name = "openvino"

    def __init__(self, compiled: openvino.CompiledModel, lanes: int) -> None:
        """Take over a compiled model, for so many lanes."""
        self.lanes = lanes
        # One run at a time may use a request.
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(lanes):
            self._requests.put(compiled.create_infer_request())
        self._outputs = [output.get_any_name() for output in compiled.outputs]

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name."""
        request = self._requests.get()
        try:
            # Without copies the next run would write over what this one answered.
            answers = request.infer([image], share_outputs=False)
        finally:
            self._requests.put(request)
        return {name: answers[place] for place, name in enumerate(self._outputs)}


def open_graph(model: bytes, threads: int | None, lanes: int = 1) -> CompiledGraph:
    """Load a graph from verified bytes; files beside it are never read.

    Raises:
        BundleError: OpenVINO does not accept the graph.
    """
    # Left to itself OpenVINO computes float layers in 16 bits where the processor can.
    options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    if lanes > 1:
        options["NUM_STREAMS"] = lanes
    core = openvino.Core()
    try:
        return CompiledGraph(core.compile_model(core.read_model(model), "CPU", options), lanes)
    except RuntimeError as error:
        # The first lines name its own source files; the last says what is wrong.
        why = str(error).strip().rpartition("\n")[2]
        message = f"openvino does not accept the bundle's graph ({why}); build the bundle anew."
        raise BundleError(message) from error
