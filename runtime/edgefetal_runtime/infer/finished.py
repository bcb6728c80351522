"""Bundles that were finished on this device: engines built here and proven here, one of them active.

    HOME/finished/ID/bundle/            the bundle, as it was verified
    HOME/finished/ID/engine.plan        the engine; none where onnxruntime runs the bundle
    HOME/finished/ID/answers.npz        golden frames, and what the engine answered to them when it was proven
    HOME/finished/ID/attestation.json   what was built, measured and found, where and when
    HOME/active, HOME/previous          links to one of these
    HOME/timing/KEY.cache               what TensorRT measured in earlier builds on this GPU

A folder of `finished` appears whole or not at all, and a link is replaced in one step, so that a power cut at any
moment leaves the old engine active or the new one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_devices.errors import BundleError, InputError
from edgefetal_runtime.atomic import as_output_error, sync
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import load_bundle, manifest_sha256, require_fit_for_clinic
from edgefetal_runtime.infer.golden import check_answers
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.tensorrt.api import load_tensorrt
from edgefetal_runtime.infer.tensorrt.cuda import load_cuda
from edgefetal_runtime.infer.tensorrt.engine import TensorRTGraph, open_plan
from edgefetal_runtime.infer.trust import Demand, machine_trust

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.tensorrt.cuda import DeviceFacts

# What the active one is called on the command line.
ACTIVE, PREVIOUS = "active", "previous"
FINISHED, BUNDLE, TIMING = "finished", "bundle", "timing"
ENGINE, ANSWERS, ATTESTATION = "engine.plan", "answers.npz", "attestation.json"
TENSORRT: Final = "tensorrt"
_HOME: Final = "EDGEFETAL_HOME"
_MAX_ATTESTATION_BYTES: Final = 1_000_000
_AGAIN: Final = "finish the bundle again by `edgefetal finish BUNDLE`"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(_Part):
    """The GPU that an engine was built and proven on.

    Args:
        name: its maker's name for it.
        compute_capability: such as `8.7`.
        uuid: its own number, or null where it has none.
        driver_cuda: the newest CUDA that its driver can do.
    """

    name: str
    compute_capability: str
    uuid: str | None
    driver_cuda: str


class Board(_Part):
    """The machine, as it says of itself.

    Args:
        model: what the device tree calls it, or null.
        profile: our profile of it, or null.
        jetpack: JetPack's version, or null.
        power_mode: that was in force, or null.
        memory_total_bytes: all memory, or null.
    """

    model: str | None
    profile: str | None
    jetpack: str | None
    power_mode: str | None
    memory_total_bytes: int | None


class Timing(_Part):
    """How fast a candidate was on this device, from the caller's array to the answers, copies included.

    Args:
        graph: file of the bundle.
        back_end: what ran it.
        build_s: what building it took, or null where nothing is built.
        p50_ms: median.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        n: timed runs, in turns with those of the other candidates.
    """

    graph: str
    back_end: str
    build_s: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int


class Check(_Part):
    """Something that was checked.

    Args:
        what: in words.
        outcome: likewise.
    """

    what: str
    outcome: str


class Attestation(_Part):
    """`attestation.json`: what was finished here.

    Args:
        format: of this file.
        created_utc: when, ISO 8601.
        edgefetal: version of the program.
        bundle: its name.
        bundle_sha256: hash of its manifest.
        signer: id of the key that signed it, or null for one that came with the program.
        device: profile that it was built for.
        graph: file of it that runs.
        back_end: what runs it: `tensorrt`, or a back end of the processor.
        tensorrt: module and version that built the engine, or null.
        engine_sha256: hash of the engine, or null.
        answers_sha256: hash of `answers.npz`.
        gpu: that it was built and proven on, or null.
        board: the machine.
        layers: how many layers the engine computes in what; empty without an engine.
        timings: of all candidates.
        checks: what was found, in order.
        cautions: what was not as it should be, and no reason to refuse.
    """

    format: Literal["edgefetal-attestation/1"] = "edgefetal-attestation/1"
    created_utc: str
    edgefetal: str
    bundle: str
    bundle_sha256: str
    signer: str | None
    device: str
    graph: str
    back_end: str
    tensorrt: str | None
    engine_sha256: str | None
    answers_sha256: str
    gpu: Gpu | None
    board: Board
    layers: dict[str, int] = Field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    checks: tuple[Check, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A finished bundle, whole and unaltered.

    Args:
        path: its folder.
        bundle: the bundle.
        attestation: what was finished.
    """

    path: Path
    bundle: Bundle
    attestation: Attestation

    def read(self, name: str, sha256: str | None) -> bytes:
        """Read a file and check it.

        Raises:
            BundleError: it is missing, a link, or not what the attestation says.
        """
        path = self.path / name
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is missing or is a link; {_AGAIN}.")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BundleError(f"{path} is not the file that was proven here (its hash differs); {_AGAIN}.")
        return content


def home_folder() -> Path:
    """Return where this machine keeps what was finished: $EDGEFETAL_HOME, or a folder of the user's."""
    named = os.environ.get(_HOME)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "edgefetal"


def gpu_of(facts: DeviceFacts) -> Gpu:
    """Write down which GPU it is."""
    major, minor = facts.compute_capability
    return Gpu(name=facts.name, compute_capability=f"{major}.{minor}", uuid=facts.uuid, driver_cuda=facts.driver_cuda)


def read_finished(home: Path, which: str = ACTIVE) -> Finished:
    """Read what is active on this machine, and verify its bundle and its attestation.

    Raises:
        BundleError: nothing is active, or something was altered.
    """
    link = home / which
    if not link.is_symlink():
        message = f"Nothing is {which} in {home}; finish a bundle on this device by `edgefetal finish BUNDLE`."
        raise BundleError(message)
    return read_folder(home / FINISHED / link.readlink().name)


def read_folder(folder: Path) -> Finished:
    """Read a finished folder, and verify its bundle and its attestation.

    Raises:
        BundleError: something was altered.
    """
    attestation = _read_attestation(folder / ATTESTATION)
    trust = machine_trust()
    # A copy of what came with the package is what came with the package.
    packaged = trust.packaged is not None and attestation.bundle_sha256 == manifest_sha256(trust.packaged)
    bundle = load_bundle(folder / BUNDLE, trust, demand=Demand.ANY if packaged else Demand.CLINIC)
    if bundle.sha256 != attestation.bundle_sha256:
        raise BundleError(f"{bundle.path} is not the bundle that was finished here; {_AGAIN}.")
    return Finished(folder, bundle, attestation)


def _read_attestation(path: Path) -> Attestation:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_ATTESTATION_BYTES:
            raise BundleError(f"{path} is a link, or too large to be an attestation; {_AGAIN}.")
        return Attestation.model_validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path} is missing or no attestation; {_AGAIN}.") from error


def open_active(*, backend: str = "auto", threads: int | None = None) -> tuple[Bundle, Network]:
    """Open what is active on this machine, to measure with.

    Args:
        backend: `auto`; what it runs on was decided when it was finished.
        threads: CPU threads, where the processor runs it.

    Raises:
        InputError: another back end was asked for.
        BundleError: nothing is active, it was altered, or is of another machine.
        EnvironmentLacksError: TensorRT or the GPU cannot be used.
        CheckFailedError: it does not answer as it did when it was proven.
    """
    if backend != "auto":
        message = f"What is active runs on what it was finished for; leave --backend {backend} out, or run its bundle."
        raise InputError(message)
    finished = read_finished(home_folder())
    return finished.bundle, open_finished(finished, threads)


def open_finished(finished: Finished, threads: int | None = None) -> Network:
    """Open what was finished, after asking whether this is still the machine that it was proven on.

    Args:
        finished: verified.
        threads: CPU threads, where the processor runs it.

    Raises:
        BundleError: the engine was altered, or is of another GPU or another TensorRT.
        EnvironmentLacksError: TensorRT or the GPU cannot be used.
        CheckFailedError: it does not answer as it did when it was proven.
    """
    attestation, bundle = finished.attestation, finished.bundle
    require_fit_for_clinic(bundle)
    if attestation.back_end == TENSORRT:
        network = Network(bundle.manifest, _open_engine(finished))
    else:
        network = Network(bundle.manifest, open_backend(attestation.back_end, bundle.read(attestation.graph), threads))
    check_answers(finished.read(ANSWERS, attestation.answers_sha256), bundle.manifest, network, _AGAIN)
    return network


def _open_engine(finished: Finished) -> TensorRTGraph:
    attestation = finished.attestation
    # Its code is run on the GPU, so it is read only after its hash was.
    plan = finished.read(ENGINE, attestation.engine_sha256)
    tensorrt = load_tensorrt()
    if tensorrt.title != attestation.tensorrt:
        message = f"The engine was built by {attestation.tensorrt} and this machine has {tensorrt.title}; {_AGAIN}."
        raise BundleError(message)
    graph = open_plan(plan, tensorrt, load_cuda(), use_graph=True)
    here = gpu_of(graph.facts)
    if here != attestation.gpu:
        graph.close()
        was = "none" if attestation.gpu is None else f"{attestation.gpu.name} ({attestation.gpu.uuid})"
        message = f"The engine was proven on another GPU or driver ({was}) than {here.name} ({here.uuid}); {_AGAIN}."
        raise BundleError(message)
    return graph


def activate(home: Path, folder: Path) -> None:
    """Make a finished folder the active one, and the active one the previous; in one step, and for good.

    Args:
        home: where finished bundles are kept.
        folder: one of them.

    Raises:
        OutputError: the links cannot be written.
    """
    with as_output_error(home):
        active = home / ACTIVE
        # First the way back: where the power fails between the two, the old one is active, and previous too.
        if active.is_symlink() and active.readlink().name != folder.name:
            _link(home, PREVIOUS, active.readlink().name)
        _link(home, ACTIVE, folder.name)


def roll_back(home: Path) -> Finished:
    """Make the previous one active again.

    Raises:
        BundleError: there is none, or it was altered.
        OutputError: the links cannot be written.
    """
    previous = read_finished(home, PREVIOUS)
    activate(home, previous.path)
    return previous


def _link(home: Path, name: str, to: str) -> None:
    partial = home / f".{name}.partial"
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path(FINISHED) / to)
    partial.replace(home / name)
    sync(home)
