"""Graphs in OpenVINO as it comes, in the place of our network."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import openvino

from edgefetal_export.peers.in_place import how_it_ran, in_place
from edgefetal_runtime.infer.bundle import REFERENCE, load_bundle
from edgefetal_runtime.infer.cores import lanes_for_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgefetal_export.peers.in_place import InPlace
    from edgefetal_export.peers.peer import Job

_PRECISION: Final = "INFERENCE_PRECISION_HINT"


class Compiled:
    """A model compiled for the processor for throughput, as its guide says for recordings.

    Attributes:
        name: `openvino`.
        lanes: requests that it serves side by side.
        precision: that it computes float layers in, which it chooses by the processor.
    """

    name = "openvino"

    def __init__(self, model: openvino.Model, job: Job) -> None:
        """Compile it."""
        self.lanes = lanes_for_files(job.threads)
        options: dict[str, str | int] = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.lanes}
        if job.threads is not None:
            options["INFERENCE_NUM_THREADS"] = job.threads
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self.precision = compiled.get_property(_PRECISION).get_type_name()
        self._outputs = [output.get_any_name() for output in model.outputs]
        # One run at a time may use a request.
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.lanes):
            self._requests.put(compiled.create_infer_request())

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name."""
        request = self._requests.get()
        try:
            answers = request.infer([image], share_outputs=False)
        finally:
            self._requests.put(request)
        return {name: answers[place] for place, name in enumerate(self._outputs)}

    def said(self, job: Job) -> str:
        """Say how it was used."""
        version = openvino.__version__.partition("-")[0]
        return f"OpenVINO {version}, float layers in {self.precision}, {how_it_ran(job, self)}"


def open_float(job: Job, _argument: str | None) -> InPlace:
    """Load the float graph with OpenVINO's own choice of precision."""
    bundle = load_bundle(job.bundle)
    compiled = Compiled(openvino.Core().read_model(bundle.read(REFERENCE)), job)
    return in_place(bundle, bundle.manifest, compiled, f"the float graph, {compiled.said(job)}")
