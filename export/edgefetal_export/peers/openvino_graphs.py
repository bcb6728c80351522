"""Graphs in OpenVINO as it comes, in the place of our network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import openvino

from edgefetal_export.peers.in_place import how_it_ran, in_place
from edgefetal_runtime.infer.bundle import REFERENCE, load_bundle
from edgefetal_runtime.infer.cores import lanes_for_files
from edgefetal_runtime.infer.openvino_backend import CompiledGraph

if TYPE_CHECKING:
    from edgefetal_export.peers.in_place import InPlace
    from edgefetal_export.peers.peer import Job

_PRECISION: Final = "INFERENCE_PRECISION_HINT"


def compile_as_it_comes(model: openvino.Model, job: Job) -> tuple[CompiledGraph, str]:
    """Compile a model for throughput, as OpenVINO's guide says for recordings, in the precision that it chooses.

    Returns:
        The graph, and how it is used.
    """
    lanes = lanes_for_files(job.threads)
    options: dict[str, str | int] = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": lanes}
    if job.threads is not None:
        options["INFERENCE_NUM_THREADS"] = job.threads
    compiled = openvino.Core().compile_model(model, "CPU", options)
    graph = CompiledGraph(compiled, lanes)
    version, precision = openvino.__version__.partition("-")[0], compiled.get_property(_PRECISION).get_type_name()
    return graph, f"OpenVINO {version}, float layers in {precision}, {how_it_ran(job, graph)}"


def open_float(job: Job, _argument: str | None) -> InPlace:
    """Load the float graph with OpenVINO's own choice of precision."""
    bundle = load_bundle(job.bundle)
    graph, used = compile_as_it_comes(openvino.Core().read_model(bundle.read(REFERENCE)), job)
    return in_place(bundle, bundle.manifest, graph, f"the float graph, {used}")
