"""Finishing a bundle on the device that is to run it: verify, build, prove, time, attest, activate.

Nothing is activated before all of it went well, and whatever fails leaves what was active as it was.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import DeviceLostError, EnvironmentLacksError, InputError
from edgefetal_devices.jetpack import read_jetpack
from edgefetal_devices.possible import require_possible
from edgefetal_devices.profile import read_profile
from edgefetal_export.engine.builder import EngineWish, build_engine
from edgefetal_export.engine.install import Proven, install, read_timing_cache, sha256_of, write_timing_cache
from edgefetal_export.engine.prove import Candidate, drawn_exams, fastest, prove
from edgefetal_export.engine.report import counted, layer_precisions, require_int8, require_promised
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import HALF, MODEL, REFERENCE, load_bundle, require_fit_for_clinic
from edgefetal_runtime.infer.finished import Attestation, Board, Check, gpu_of
from edgefetal_runtime.infer.golden import check_preprocessing, golden_pixels, make_golden
from edgefetal_runtime.infer.tensorrt.engine import open_plan, read_facts
from edgefetal_runtime.infer.trust import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.drawn import DrawnExam
    from edgefetal_devices import detect
    from edgefetal_devices.profile import Profile
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.finished import Finished, Gpu, Timing
    from edgefetal_runtime.infer.tensorrt.api import TensorRT
    from edgefetal_runtime.infer.tensorrt.cuda import Cuda, DeviceFacts
    from edgefetal_runtime.infer.trust import Trust

# What a build takes beside its workspace, and what two engines of our networks and their bundle take on a disk.
_LEAST_MEMORY_BYTES: Final = 1 << 30
_LEAST_DISK_BYTES: Final = 256 << 20
_FLOAT_BACK_END: Final = "onnxruntime"


@dataclass(frozen=True)
class Here:
    """What finishing needs of this machine.

    Args:
        board: what it is.
        machine: what `platform.machine()` calls its processor.
        available_bytes: memory that programs can still have, or None where nobody knows.
        cautions: what is not as it should be, such as clocks that change or a low power mode.
        load_tensorrt: gives TensorRT, or raises EnvironmentLacksError.
        load_cuda: gives the library for the GPU's memory, likewise.
    """

    board: detect.Board
    machine: str
    available_bytes: int | None
    cautions: tuple[str, ...]
    load_tensorrt: Callable[[], TensorRT]
    load_cuda: Callable[[], Cuda]


@dataclass(frozen=True)
class FinishWish:
    """What the user asks for.

    Args:
        allow_onnxruntime: run the float graph on the processor where TensorRT cannot be used.
        dla_core: core of the deep-learning accelerator that is to run what it can; None for the GPU alone.
    """

    allow_onnxruntime: bool = False
    dla_core: int | None = None


@dataclass(frozen=True, eq=False)
class _Work:
    """What every step of finishing a bundle needs."""

    bundle: Bundle
    profile: Profile
    home: Path
    here: Here
    wish: FinishWish
    progress: Progress


@dataclass(frozen=True, eq=False)
class _Built:
    """A candidate with what was built for it.

    Args:
        candidate: ready to run.
        plan: its engine, or None.
        layers: how many layers it computes in what.
        tensorrt: what built it, or None.
        gpu: that it runs on, or None.
    """

    candidate: Candidate
    plan: bytes | None = None
    layers: tuple[tuple[str, int], ...] = ()
    tensorrt: str | None = None
    gpu: Gpu | None = None


def finish(
    folder: Path,
    home: Path,
    here: Here,
    wish: FinishWish,
    *,
    progress: Progress,
    trust: Trust | None = None,
    exams: Sequence[DrawnExam] | None = None,
) -> Finished:
    """Finish a bundle on this machine.

    Args:
        folder: the bundle; signed by a key that this machine trusts, or the package's own.
        home: where finished bundles are kept.
        here: this machine.
        wish: what the user asks for.
        progress: who wants to know how far it is.
        trust: whom to trust; None for whom this machine trusts.
        exams: simulated exams to judge on; None for the usual ones.

    Returns:
        What is active now.

    Raises:
        BundleError: it is no bundle, altered, of unknown origin, or not fit for the clinic.
        InputError: it is for another board, or the board cannot do what is asked for.
        EnvironmentLacksError: TensorRT or the GPU cannot be used, or memory is short.
        CheckFailedError: it does not build, does not answer as it should, or breaks its budget here.
        OutputError: the disk does not take it.
    """
    bundle = load_bundle(folder, trust, demand=Demand.TRUSTED)
    require_fit_for_clinic(bundle)
    work = _Work(bundle, read_profile(bundle.manifest.device), home, here, wish, progress)
    _require_board(work)
    _require_disk(home)
    frames = check_preprocessing(bundle)
    chosen = exams if exams is not None else drawn_exams(bundle.manifest.heads.mask)
    with ExitStack() as opened:
        built = _candidates(work, opened)
        checks = [prove(bundle, b.candidate, chosen, progress) for b in built]
        best, timings = fastest(bundle, [b.candidate for b in built], progress)
        answers = make_golden(golden_pixels(bundle), bundle.manifest.preprocess, built[best].candidate.backend)
    attestation = _attest(work, built[best], (_prepared(frames), *checks[best]), timings, answers)
    # The engines were closed: what runs from now on is what is read from the disk.
    name = f"{bundle.sha256[:12]}-{re.sub('[^0-9T]', '', attestation.created_utc)[:15]}"
    return install(home, name, bundle, Proven(attestation, built[best].plan, answers))


def _require_board(work: _Work) -> None:
    """Refuse a machine that the bundle is not for.

    Raises:
        InputError: so it is, or it cannot do what is asked for.
    """
    path, profile, here = work.bundle.path, work.profile, work.here
    if profile.gpu is None:
        if here.machine not in profile.machines:
            message = f"{path} is for {profile.title}, and this is {here.machine}; build it for this machine."
            raise InputError(message)
        if work.wish.dla_core is not None:
            raise InputError(f"{path} is for {profile.title}, which has no DLA; leave --dla out.")
        return
    if here.board.profile != profile.name:
        model = here.board.model or ", ".join(here.board.gpus) or here.machine
        known = f"{model}, {here.board.profile}" if here.board.profile else f"{model}, which is no board of ours"
        message = (
            f"{path} is for {profile.name}, and this is {known}; build it for this board: edgefetal build "
            f"{path} --device {here.board.profile or 'NAME'}."
        )
        raise InputError(message)
    _require_possible(work, None)


def _require_possible(work: _Work, tensorrt: TensorRT | None) -> None:
    """Refuse what the board, its JetPack or its TensorRT cannot do.

    Raises:
        InputError: there is such a thing.
    """
    jetpack = None if work.here.board.jetpack is None else read_jetpack(work.here.board.jetpack)
    version = None if tensorrt is None else tensorrt.numbers
    dla = tensorrt is not None and work.wish.dla_core is not None
    require_possible(work.profile, precision="auto", jetpack=jetpack, tensorrt=version, dla=dla)


def _require_disk(home: Path) -> None:
    """Refuse a disk without room for what is to be written.

    Raises:
        EnvironmentLacksError: it has none.
    """
    nearest = next(parent for parent in (home, *home.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if free_bytes < _LEAST_DISK_BYTES:
        message = (
            f"{nearest} has {free_bytes / 1e6:.0f} MB free, and finishing wants {_LEAST_DISK_BYTES / 1e6:.0f}; free "
            "some, or set EDGEFETAL_HOME to another disk."
        )
        raise EnvironmentLacksError(message)


def _candidates(work: _Work, opened: ExitStack) -> list[_Built]:
    """Load every graph of the bundle that could run here, the shipped one first.

    Raises:
        EnvironmentLacksError: TensorRT or the GPU cannot be used and the processor was not allowed, or memory is short.
        InputError: the GPU or its TensorRT is not the board's.
        CheckFailedError: an engine does not build, or does not compute as the manifest says.
    """
    bundle = work.bundle
    if work.profile.gpu is None:
        return [_Built(Candidate(MODEL, open_backend(work.profile.back_end, bundle.read(MODEL))))]
    try:
        tensorrt, cuda = work.here.load_tensorrt(), work.here.load_cuda()
        facts = read_facts(cuda)
    except DeviceLostError:
        raise
    except EnvironmentLacksError as error:
        if not work.wish.allow_onnxruntime:
            message = f"{error} Or run the float graph on the processor, slower, with --allow-onnxruntime."
            raise EnvironmentLacksError(message) from error
        return [_Built(Candidate(REFERENCE, open_backend(_FLOAT_BACK_END, bundle.read(REFERENCE))))]
    _require_gpu(work, tensorrt, facts)
    graphs = [MODEL, *([HALF] if HALF in bundle.manifest.files else [])]
    return [_built(work, graph, tensorrt, cuda, facts, opened) for graph in graphs]


def _require_gpu(work: _Work, tensorrt: TensorRT, facts: DeviceFacts) -> None:
    """Refuse a GPU, a TensorRT or too little memory.

    Raises:
        InputError: the GPU or TensorRT is not the board's, or the board has no DLA that could be used.
        EnvironmentLacksError: memory is short.
    """
    gpu = gpu_of(facts)
    known = () if work.profile.gpu is None else work.profile.gpu.compute_capabilities
    if gpu.compute_capability not in known:
        message = (
            f"The GPU {gpu.name} has compute capability {gpu.compute_capability}, and {work.profile.title} has "
            f"{', '.join(known)}; build the bundle for this machine."
        )
        raise InputError(message)
    _require_possible(work, tensorrt)
    free_bytes = work.here.available_bytes
    if free_bytes is not None and free_bytes < _LEAST_MEMORY_BYTES:
        message = (
            f"{free_bytes / 1e6:.0f} MB of memory are free, and building an engine wants "
            f"{_LEAST_MEMORY_BYTES / 1e6:.0f}; close other programs, the desktop first, and finish again."
        )
        raise EnvironmentLacksError(message)


def _built(work: _Work, graph: str, tensorrt: TensorRT, cuda: Cuda, facts: DeviceFacts, opened: ExitStack) -> _Built:
    """Build an engine, open it, and check what its layers compute in.

    Raises:
        CheckFailedError: it does not build, or does not compute as the manifest says.
    """
    key = _timing_key(tensorrt, facts)
    wish = EngineWish(
        workspace_bytes=_workspace_bytes(work),
        dla_core=work.wish.dla_core,
        timing_cache=read_timing_cache(work.home, key),
    )
    built = build_engine(work.bundle.read(graph), tensorrt, wish, work.progress)
    if built.timing_cache:
        write_timing_cache(work.home, key, built.timing_cache)
    if graph == MODEL:
        require_promised(built.layers, work.bundle.manifest.layers)
    engine = opened.enter_context(open_plan(built.plan, tensorrt, cuda, use_graph=True))
    layers = layer_precisions(built.layers, engine.inspect())
    require_int8(layers)
    return _Built(
        candidate=Candidate(graph, engine, built.seconds),
        plan=built.plan,
        layers=tuple(counted(layers).items()),
        tensorrt=tensorrt.title,
        gpu=gpu_of(engine.facts),
    )


def _workspace_bytes(work: _Work) -> int | None:
    """Return how much memory a layer may try: the board's cap, and never more than half of what is free."""
    free_bytes = work.here.available_bytes
    caps = (
        None if work.profile.gpu is None else work.profile.gpu.workspace_bytes,
        None if free_bytes is None else free_bytes // 2,
    )
    return min((cap for cap in caps if cap is not None), default=None)


def _timing_key(tensorrt: TensorRT, facts: DeviceFacts) -> str:
    """Name what measured times belong to: this GPU, this TensorRT, this CUDA."""
    parts = (tensorrt.title, facts.name, facts.uuid, facts.compute_capability, facts.driver_cuda)
    return sha256_of("\n".join(map(str, parts)).encode())[:16]


def _attest(
    work: _Work, taken: _Built, checks: tuple[Check, ...], timings: tuple[Timing, ...], answers: bytes
) -> Attestation:
    bundle, board = work.bundle, work.here.board
    return Attestation(
        created_utc=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        edgefetal=metadata.version("edgefetal"),
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        signer=None if bundle.signed_by is None else bundle.signed_by.key_id,
        device=bundle.manifest.device,
        graph=taken.candidate.graph,
        back_end=taken.candidate.backend.name,
        tensorrt=taken.tensorrt,
        engine_sha256=None if taken.plan is None else sha256_of(taken.plan),
        answers_sha256=sha256_of(answers),
        gpu=taken.gpu,
        board=Board(
            model=board.model,
            profile=board.profile,
            jetpack=board.jetpack,
            power_mode=None if board.power_mode is None else board.power_mode.name,
            memory_total_bytes=board.memory_bytes,
        ),
        layers=dict(taken.layers),
        timings=timings,
        checks=checks,
        cautions=work.here.cautions,
    )


def _prepared(frames: int) -> Check:
    return Check(what=f"{frames} golden frames prepared", outcome="bit for bit as where the bundle was built")
