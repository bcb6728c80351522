"""Networks in the place of ours in our own examination: ours, and the float graph in onnxruntime."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Final

from edgefetal_devices.profile import profile_names, read_profile
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.principal import PRINCIPAL, principal_length
from edgefetal_runtime.exam.find import find
from edgefetal_runtime.exam.pipeline import examine
from edgefetal_runtime.exam.record import ALL_SWEEPS
from edgefetal_runtime.infer.bundle import HEAD, MODEL, REFERENCE, load_bundle
from edgefetal_runtime.infer.cores import lanes_for_files
from edgefetal_runtime.infer.network import Network, load_network

if TYPE_CHECKING:
    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Bundle, Manifest

OPENVINO: Final = "openvino"


@dataclass(frozen=True, eq=False)
class InPlace:
    """Our examination with another network in the place of ours.

    Args:
        bundle: whose manifest says what the network's outputs mean.
        network: the network.
        settings: of the tool that runs it.
    """

    bundle: Bundle
    network: Network
    settings: str

    def examine(self, recording: Recording) -> float | None:
        """Examine a recording as `edgefetal run` does; return HC in mm, or None."""
        source = recording.open()
        result = examine(source, recording.path.name, self.bundle, self.network, simulated=recording.simulated)
        values = {value.sweep: value.value for value in result.exam.measurements if value.name == PRINCIPAL[HEAD].name}
        return values.get(ALL_SWEEPS, next(iter(values.values()), None))

    def measure(self, frame: Frame) -> float | None:
        """Measure the head in one picture as `edgefetal evaluate` does; return HC in mm, or None."""
        image, box = self.network.prepare(frame.pixels)
        found = find(self.network.manifest, HEAD, image, self.network.infer(image), box, frame.scale)
        measured = principal_length(found, HEAD)
        return measured.value if isinstance(measured, Measured) else None


def in_place(bundle: Bundle, manifest: Manifest, backend: Backend, settings: str) -> InPlace:
    """Put a network in the place of the bundle's."""
    return InPlace(replace(bundle, manifest=manifest), Network(manifest, backend), settings)


def how_it_ran(job: Job, backend: Backend) -> str:
    """Say how many threads a network had, and how many frames at a time."""
    threads = "all cores" if job.threads is None else f"{job.threads} threads"
    frames = "one frame at a time" if backend.lanes == 1 else f"{backend.lanes} frames side by side"
    return f"{threads}, {frames}"


def load_shipped(job: Job, backend: str | None = None, lanes: int = 1) -> Network:
    """Load the graph that ships as the clinic's install does, which has no torch.

    Args:
        job: the job.
        backend: the back end, or None for the job's.
        lanes: frames that are to be run side by side.
    """
    bundle = load_bundle(job.bundle)
    backend = backend or job.backend
    device = bundle.manifest.device
    if backend == "auto" and device in profile_names():
        backend = read_profile(device).back_end
    if backend != OPENVINO:
        return load_network(bundle, backend=backend, threads=job.threads, lanes=lanes)
    # `load_network` would give it a process of its own, because torch is installed here and might come into this one,
    # which no peer of this module lets in.
    opens = importlib.import_module("edgefetal_runtime.infer.openvino_backend").open_graph
    return Network(bundle.manifest, opens(bundle.read(MODEL), job.threads, lanes))


def open_ours(job: Job, backend: str | None) -> InPlace:
    """Load the bundle as `edgefetal run` does.

    Args:
        job: the job.
        backend: the back end, or None for the job's.
    """
    network = load_shipped(job, backend, lanes_for_files(job.threads))
    settings = f"the graph that ships, {network.backend.name}, {how_it_ran(job, network.backend)}"
    return InPlace(load_bundle(job.bundle), network, settings)


def open_onnxruntime(job: Job, _argument: str | None) -> InPlace:
    """Load the float graph into onnxruntime with all of its optimisations, which is how it comes."""
    bundle = load_bundle(job.bundle)
    lanes = lanes_for_files(job.threads)
    network = load_network(bundle, backend="onnxruntime", file=REFERENCE, threads=job.threads, lanes=lanes)
    version = metadata.version("onnxruntime")
    return InPlace(bundle, network, f"float, onnxruntime {version}, {how_it_ran(job, network.backend)}")
