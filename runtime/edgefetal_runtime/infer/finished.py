"""Bundles that were finished on this device: engines built here and proven here, one of them active.

    HOME/finished/ID/bundle/            the bundle, as it was verified
    HOME/finished/ID/engine.plan        the engine; none where the processor runs the bundle
    HOME/finished/ID/answers.npz        golden frames, and what was answered to them when it was proven
    HOME/finished/ID/attestation.json   what was built, measured and found, where and when
    HOME/active, HOME/previous          links to one of these
    HOME/timing/KEY.cache               what TensorRT measured in an earlier build on this GPU
    HOME/lock                           held while something is finished

ID is the hash of the attestation, which holds the hashes of the engine, of the answers and of the bundle's manifest,
and that the hash of every other file. So what a link names is whole and unaltered, or refused. An engine is native
code: nothing is read from a HOME that anybody may write to.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgefetal_devices.detect import read_serial
from edgefetal_devices.errors import BundleError, InputError
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import (
    HALF,
    MODEL,
    REFERENCE,
    load_bundle,
    manifest_sha256,
    require_fit_for_clinic,
)
from edgefetal_runtime.infer.golden import check_answers
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.tensorrt.api import load_tensorrt
from edgefetal_runtime.infer.tensorrt.cuda import load_cuda
from edgefetal_runtime.infer.tensorrt.engine import NAME as TENSORRT
from edgefetal_runtime.infer.tensorrt.engine import open_plan
from edgefetal_runtime.infer.trust import Demand, machine_trust, packaged_bundle

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.golden import GoldenReport
    from edgefetal_runtime.infer.tensorrt.cuda import DeviceFacts
    from edgefetal_runtime.infer.tensorrt.engine import TensorRTGraph
    from edgefetal_runtime.infer.trust import Trust

# What the active one is called on the command line.
ACTIVE, PREVIOUS = "active", "previous"
FINISHED, BUNDLE, TIMING = "finished", "bundle", "timing"
ENGINE, ANSWERS, ATTESTATION = "engine.plan", "answers.npz", "attestation.json"
_HOME: Final = "EDGEFETAL_HOME"
_MAX_ATTESTATION_BYTES: Final = 1_000_000
_ID_DIGITS: Final = 32
_ID: Final = re.compile(f"[0-9a-f]{{{_ID_DIGITS}}}")
_AGAIN: Final = "finish the bundle again by `edgefetal finish BUNDLE`"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(_Part):
    """The GPU that an engine was built and proven on.

    Args:
        name: its maker's name for it.
        compute_capability: such as `8.7`.
        uuid: its own number, or null where it, or the library that was asked, tells none.
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
        serial: its own number, or null.
        profile: our profile of it, or null.
        jetpack: JetPack's version, or null.
        power_mode: that was in force, or null.
        memory_total_bytes: all memory, or null.
    """

    model: str | None
    serial: str | None
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
    bundle_sha256: Sha256
    signer: str | None
    device: str
    graph: str
    back_end: str
    tensorrt: str | None
    engine_sha256: Sha256 | None
    answers_sha256: Sha256
    gpu: Gpu | None
    board: Board
    layers: dict[str, int] = Field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    checks: tuple[Check, ...] = ()
    cautions: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_what_runs(self) -> Attestation:
        """Refuse an engine of which something is not said, and what no bundle has a graph of."""
        if self.graph not in (MODEL, HALF, REFERENCE):
            raise ValueError(f"{self.graph} is no graph of a bundle")
        of_engine = (self.tensorrt, self.engine_sha256, self.gpu)
        if any((value is not None) != (self.back_end == TENSORRT) for value in of_engine):
            raise ValueError("an engine has a TensorRT, a hash and a GPU, and a processor none of these")
        return self


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

    def read_answers(self) -> bytes:
        """Read the golden frames with what was answered to them when it was proven.

        Raises:
            BundleError: the file is missing, a link, or not what the attestation says.
        """
        return _read_proven(self.path / ANSWERS, self.attestation.answers_sha256)

    def read_engine(self) -> bytes | None:
        """Read the engine; None where the processor runs the bundle.

        Raises:
            BundleError: as `read_answers`.
        """
        sha256 = self.attestation.engine_sha256
        return None if sha256 is None else _read_proven(self.path / ENGINE, sha256)


def sha256_of(content: bytes) -> str:
    """Return the hash that an attestation keeps of a file."""
    return hashlib.sha256(content).hexdigest()


def id_of(attestation: bytes) -> str:
    """Return the name of the folder that an attestation is kept in."""
    return sha256_of(attestation)[:_ID_DIGITS]


def home_folder() -> Path:
    """Return where this machine keeps what was finished: $EDGEFETAL_HOME, or a folder of the user's.

    Raises:
        InputError: $EDGEFETAL_HOME is not an absolute path, or there is neither that nor a user's home.
    """
    named = os.environ.get(_HOME)
    if named:
        if not Path(named).is_absolute():
            message = f"{_HOME} is {named}, which is another folder wherever it is read; give it as a path from / on."
            raise InputError(message)
        return Path(named)
    stated = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        # The base directory specification has a path that is not absolute left out of account.
        return (stated if stated.is_absolute() else Path.home() / ".local" / "share") / "edgefetal"
    except RuntimeError as error:
        message = f"This user has no home, so nothing says where finished bundles are kept; set {_HOME} to a folder."
        raise InputError(message) from error


def gpu_of(facts: DeviceFacts) -> Gpu:
    """Write down which GPU it is."""
    major, minor = facts.compute_capability
    return Gpu(name=facts.name, compute_capability=f"{major}.{minor}", uuid=facts.uuid, driver_cuda=facts.driver_cuda)


def linked_id(home: Path, which: str) -> str | None:
    """Return the name of the finished folder that is `active` or `previous`; None where nothing is.

    Raises:
        OSError: the folder cannot be read.
    """
    link = home / which
    if not link.is_symlink():
        return None
    to = link.readlink()
    return to.name if to == Path(FINISHED, to.name) and _ID.fullmatch(to.name) else None


def linked_folder(home: Path, which: str = ACTIVE) -> Path:
    """Return the finished folder that is `active` or `previous`, of which nothing is read.

    Raises:
        BundleError: nothing is, or the link leads elsewhere.
    """
    try:
        name = linked_id(home, which)
    except OSError as error:
        message = f"{home / which} cannot be read ({error.strerror}); check its permissions, or set {_HOME}."
        raise BundleError(message) from error
    if name is not None:
        return home / FINISHED / name
    if os.path.lexists(home / which):
        raise BundleError(f"{home / which} is no link to something that was finished here; remove it, and {_AGAIN}.")
    message = f"Nothing is {which} in {home}; finish a bundle on this device by `edgefetal finish BUNDLE`."
    raise BundleError(message)


def active_bundle(home: Path) -> Path:
    """Return the folder of the bundle that is active: the package's own where it is that one, else its copy.

    Raises:
        BundleError: nothing is active.
    """
    copy, packaged = linked_folder(home) / BUNDLE, packaged_bundle()
    return packaged if packaged is not None and manifest_sha256(packaged) == manifest_sha256(copy) else copy


def read_finished(home: Path, which: str = ACTIVE, trust: Trust | None = None) -> Finished:
    """Read what is active on this machine, and verify its bundle and its attestation.

    Args:
        home: where finished bundles are kept.
        which: `active` or `previous`.
        trust: whom to trust; None for whom this machine trusts.

    Raises:
        BundleError: nothing is active, something was altered, anybody may write there, or the bundle is of a key that
            is no longer trusted.
    """
    return read_folder(linked_folder(home, which), trust)


def read_folder(folder: Path, trust: Trust | None = None) -> Finished:
    """Read a finished folder, and verify its bundle and its attestation.

    Args:
        folder: HOME/finished/ID.
        trust: whom to trust; None for whom this machine trusts.

    Raises:
        BundleError: as `read_finished`.
    """
    for above in (folder.parent.parent, folder.parent):
        _refuse_writable(above)
    content = _read_plain(folder / ATTESTATION, _MAX_ATTESTATION_BYTES)
    if id_of(content) != folder.name:
        raise BundleError(f"{folder / ATTESTATION} is not what was written here (its hash differs); {_AGAIN}.")
    attestation = _parse_attestation(folder / ATTESTATION, content)
    trust = machine_trust() if trust is None else trust
    # A copy of what came with the package is what came with the package.
    packaged = trust.packaged is not None and attestation.bundle_sha256 == manifest_sha256(trust.packaged)
    bundle = load_bundle(folder / BUNDLE, trust, demand=Demand.ANY if packaged else Demand.CLINIC)
    if bundle.sha256 != attestation.bundle_sha256:
        raise BundleError(f"{bundle.path} is not the bundle that was finished here; {_AGAIN}.")
    if attestation.graph not in bundle.manifest.files:
        raise BundleError(f"{bundle.path} has no {attestation.graph}, which was finished here; {_AGAIN}.")
    return Finished(folder, bundle, attestation)


def _refuse_writable(folder: Path) -> None:
    """Refuse a folder in which anybody could put an engine of their own.

    Raises:
        BundleError: it is one, or is not there.
    """
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise BundleError(f"{folder} cannot be read ({error.strerror}); {_AGAIN}.") from error
    if mode & stat.S_IWOTH:
        message = (
            f"{folder} can be written by anybody, who could put an engine there; run `chmod o-w` on it, and {_AGAIN}."
        )
        raise BundleError(message)


def _read_plain(path: Path, most_bytes: int | None = None) -> bytes:
    """Read a file that is no link.

    Raises:
        BundleError: it is missing, a link, or larger than it may be.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is missing or is a link; {_AGAIN}.")
        if most_bytes is not None and path.stat().st_size > most_bytes:
            raise BundleError(f"{path} is too large to be what was written here; {_AGAIN}.")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions, or {_AGAIN}.") from error


def _read_proven(path: Path, sha256: str) -> bytes:
    """Read a file and check that it is the one that was proven.

    Raises:
        BundleError: it is not.
    """
    content = _read_plain(path)
    if sha256_of(content) != sha256:
        raise BundleError(f"{path} is not the file that was proven here (its hash differs); {_AGAIN}.")
    return content


def _parse_attestation(path: Path, content: bytes) -> Attestation:
    try:
        return Attestation.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise BundleError(f"{path} is no attestation that this edgefetal can read; {_AGAIN}.") from error


def open_active(*, backend: str = "auto", threads: int | None = None, lanes: int = 1) -> tuple[Bundle, Network]:
    """Open what is active on this machine, to measure with.

    Args:
        backend: `auto`; what it runs on was decided when it was finished.
        threads: CPU threads, where the processor runs it.
        lanes: frames that are to be run side by side, likewise.

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
    return finished.bundle, open_finished(finished, threads, lanes)


def open_finished(finished: Finished, threads: int | None = None, lanes: int = 1) -> Network:
    """Open what was finished, after asking whether this is still the machine that it was proven on.

    Args:
        finished: verified.
        threads: CPU threads, where the processor runs it.
        lanes: frames that are to be run side by side, likewise.

    Raises:
        BundleError: the engine was altered, or is of another board, GPU, driver or TensorRT.
        EnvironmentLacksError: TensorRT or the GPU cannot be used.
        CheckFailedError: it does not answer as it did when it was proven.
    """
    with ExitStack() as opened:
        network, _ = _opened(finished, threads, lanes, opened)
        # What went well stays open.
        opened.pop_all()
    return network


def try_out(finished: Finished) -> GoldenReport:
    """Open what was finished as `open_finished` does, close it again, and say how its answers compared.

    Raises:
        BundleError, EnvironmentLacksError, CheckFailedError: as `open_finished`.
    """
    with ExitStack() as opened:
        return _opened(finished, None, 1, opened)[1]


def _opened(finished: Finished, threads: int | None, lanes: int, opened: ExitStack) -> tuple[Network, GoldenReport]:
    attestation, bundle = finished.attestation, finished.bundle
    require_fit_for_clinic(bundle)
    here, was = read_serial(), attestation.board.serial
    if here != was:
        message = (
            f"It was proven on another board (number {was or 'unknown'}) than this ({here or 'unknown'}); {_AGAIN}."
        )
        raise BundleError(message)
    plan, answers = finished.read_engine(), finished.read_answers()
    if plan is None:
        graph = bundle.read(attestation.graph)
        network = Network(bundle.manifest, open_backend(attestation.back_end, graph, threads, lanes))
    else:
        network = Network(bundle.manifest, _open_engine(plan, attestation, opened))
    return network, check_answers(answers, bundle.manifest, network, _AGAIN)


def _open_engine(plan: bytes, attestation: Attestation, opened: ExitStack) -> TensorRTGraph:
    tensorrt = load_tensorrt()
    if tensorrt.title != attestation.tensorrt:
        message = f"The engine was built by {attestation.tensorrt} and this machine has {tensorrt.title}; {_AGAIN}."
        raise BundleError(message)
    graph = opened.enter_context(open_plan(plan, tensorrt, load_cuda(), use_graph=True))
    here, was = gpu_of(graph.facts), attestation.gpu
    if here != was:
        message = f"The engine was proven on {_named(was)}, and this is {_named(here)}; {_AGAIN}."
        raise BundleError(message)
    return graph


def _named(gpu: Gpu | None) -> str:
    if gpu is None:
        return "no GPU"
    number = "" if gpu.uuid is None else f", {gpu.uuid}"
    return f"{gpu.name} ({gpu.compute_capability}{number}, driver for CUDA {gpu.driver_cuda})"
