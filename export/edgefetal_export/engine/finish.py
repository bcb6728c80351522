"""Finishing a bundle on the device that is to run it: verify, build, prove, time, attest, activate.

Nothing is activated before all of it went well, and whatever fails leaves what was active as it was.
"""

from __future__ import annotations

import datetime as dt
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import DeviceLostError, EnvironmentLacksError, InputError
from edgefetal_devices.jetpack import read_jetpack
from edgefetal_devices.possible import require_possible
from edgefetal_devices.profile import read_profile
from edgefetal_export.engine.builder import EngineWish, build_engine
from edgefetal_export.engine.install import (
    Proven,
    forget_unused,
    install,
    owned,
    read_timing_cache,
)
from edgefetal_export.engine.prove import Candidate, budget_of, drawn_exams, fastest, prove
from edgefetal_export.engine.report import counted, layer_precisions, require_int8, require_promised
from edgefetal_runtime.atomic import as_output_error
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import HALF, MODEL, REFERENCE, load_bundle, require_fit_for_clinic
from edgefetal_runtime.infer.finished import Attestation, Board, Check, gpu_of, sha256_of
from edgefetal_runtime.infer.golden import check_preprocessing, golden_pixels, make_golden
from edgefetal_runtime.infer.tensorrt.engine import open_plan, read_facts
from edgefetal_runtime.infer.trust import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_devices import detect
    from edgefetal_devices.profile import Profile
    from edgefetal_export.engine.install import TimingCache
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.finished import Finished, Gpu, Timing
    from edgefetal_runtime.infer.tensorrt.api import TensorRT
    from edgefetal_runtime.infer.tensorrt.cuda import Cuda, DeviceFacts
    from edgefetal_runtime.infer.trust import Trust

# What a build takes beside its workspace; what proving takes (356 MB were seen); and room for two engines, the bundle
# and what is kept of the one before.
_LEAST_TO_BUILD_BYTES: Final = 1 << 30
_LEAST_TO_PROVE_BYTES: Final = 512 << 20
_LEAST_DISK_BYTES: Final = 256 << 20
_FLOAT_BACK_END: Final = "onnxruntime"


@dataclass(frozen=True)
class Here:
    """What finishing needs of this machine.

    Args:
        board: what it is.
        serial: its own number, or None where it does not say one.
        machine: what `platform.machine()` calls its processor.
        available_bytes: memory that programs can still have, or None where nobody knows.
        cautions: what is not as it should be, such as clocks that change or a low power mode.
        load_tensorrt: gives TensorRT, or raises EnvironmentLacksError.
        load_cuda: gives the library for the GPU's memory, likewise.
    """

    board: detect.Board
    serial: str | None
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
        timing: what was measured in this build and those before, or None.
    """

    candidate: Candidate
    plan: bytes | None = None
    layers: tuple[tuple[str, int], ...] = ()
    tensorrt: str | None = None
    gpu: Gpu | None = None
    timing: TimingCache | None = None


def finish(
    folder: Path,
    home: Path,
    here: Here,
    wish: FinishWish,
    *,
    progress: Progress,
    trust: Trust | None = None,
    exams: Sequence[LabelledExam] | None = None,
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
        BundleError: it is no bundle, altered, of unknown origin, not fit for the clinic, or does not say its budget.
        InputError: it is for another board, or the board cannot do what is asked for.
        EnvironmentLacksError: TensorRT or the GPU cannot be used, or memory is short.
        CheckFailedError: it does not build, does not answer as it should, or breaks its budget here.
        OutputError: the disk does not take it.
    """
    bundle = load_bundle(folder, trust, demand=Demand.TRUSTED)
    require_fit_for_clinic(bundle)
    # Asked here too, before the minutes that a build takes.
    budget_of(bundle)
    work = _Work(bundle, read_profile(bundle.manifest.device), home, here, wish, progress)
    _require_board(work)
    with owned(home):
        # What a power cut left behind may be what fills the disk.
        forget_unused(home)
        _require_disk(home)
        proven = _proven(work, exams)
        # The engines were closed: what runs from now on is what is read from the disk.
        return install(home, bundle, proven, trust)


def _proven(work: _Work, exams: Sequence[LabelledExam] | None) -> Proven:
    """Build every candidate, prove them all, and take the fastest.

    Raises:
        InputError, EnvironmentLacksError, CheckFailedError, BundleError: as `finish`.
    """
    bundle, progress = work.bundle, work.progress
    frames = check_preprocessing(bundle)
    chosen = exams if exams is not None else drawn_exams(bundle.manifest.heads.mask)
    with ExitStack() as opened:
        built = _candidates(work, opened)
        candidates = [each.candidate for each in built]
        checks = prove(bundle, candidates, chosen, progress)
        best, timings = fastest(bundle, candidates, progress)
        answers = make_golden(golden_pixels(bundle), bundle.manifest.preprocess, built[best].candidate.backend)
    attestation = _attest(work, built[best], (_prepared(frames), *checks[best]), timings, answers)
    return Proven(attestation, built[best].plan, answers, built[-1].timing)


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
            f"{path} is for {profile.name}, and this is {known}; build it for this machine: edgefetal build "
            f"{path} --device {here.board.profile or 'cpu'}."
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
        OutputError: it cannot be asked.
    """
    with as_output_error(home):
        free_bytes = shutil.disk_usage(home).free
    if free_bytes < _LEAST_DISK_BYTES:
        message = (
            f"The disk of {home} has {free_bytes / 1e6:.0f} MB free, and finishing wants "
            f"{_LEAST_DISK_BYTES / 1e6:.0f}; free some, or set EDGEFETAL_HOME to another disk."
        )
        raise EnvironmentLacksError(message)


def _require_memory(work: _Work, least_bytes: int) -> None:
    """Refuse to begin what would end for want of memory.

    Raises:
        EnvironmentLacksError: there is too little.
    """
    free_bytes = work.here.available_bytes
    if free_bytes is not None and free_bytes < least_bytes:
        message = (
            f"{free_bytes / 1e6:.0f} MB of memory are free, and finishing wants {least_bytes / 1e6:.0f}; close other "
            "programs, the desktop first, and finish again."
        )
        raise EnvironmentLacksError(message)


def _candidates(work: _Work, opened: ExitStack) -> list[_Built]:
    """Load every graph of the bundle that could run here, the shipped one first.

    Raises:
        EnvironmentLacksError: TensorRT or the GPU cannot be used and the processor was not allowed, or memory is short.
        InputError: the GPU or its TensorRT is not the board's.
        CheckFailedError: an engine does not build, or does not compute as the manifest says.
    """
    bundle, wish = work.bundle, work.wish
    if work.profile.gpu is None:
        return _on_processor(work, MODEL, work.profile.back_end)
    try:
        tensorrt, cuda = work.here.load_tensorrt(), work.here.load_cuda()
        facts = read_facts(cuda)
    except DeviceLostError:
        raise
    except EnvironmentLacksError as error:
        # Who asks for the DLA does not mean the processor.
        if wish.dla_core is not None:
            raise
        if not wish.allow_onnxruntime:
            message = f"{error} Or run the float graph on the processor, slower, with --allow-onnxruntime."
            raise EnvironmentLacksError(message) from error
        return _on_processor(work, REFERENCE, _FLOAT_BACK_END)
    _require_gpu(work, tensorrt, facts)
    _require_memory(work, _LEAST_TO_BUILD_BYTES)
    built: list[_Built] = []
    timing = read_timing_cache(work.home, _timing_key(tensorrt, facts))
    for graph in (MODEL, HALF) if HALF in bundle.manifest.files else (MODEL,):
        built.append(_built(work, graph, tensorrt, cuda, timing, opened))
        timing = built[-1].timing or timing
    return built


def _on_processor(work: _Work, graph: str, back_end: str) -> list[_Built]:
    """Load the one graph that the processor runs.

    Raises:
        EnvironmentLacksError: the back end is not there, or memory is short.
    """
    _require_memory(work, _LEAST_TO_PROVE_BYTES)
    return [_Built(Candidate(graph, open_backend(back_end, work.bundle.read(graph))))]


def _require_gpu(work: _Work, tensorrt: TensorRT, facts: DeviceFacts) -> None:
    """Refuse a GPU or a TensorRT that is not the board's.

    Raises:
        InputError: it is not, or the board has no DLA that could be used.
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


def _built(work: _Work, graph: str, tensorrt: TensorRT, cuda: Cuda, timing: TimingCache, opened: ExitStack) -> _Built:
    """Build an engine, open it, and check what its layers compute in.

    Raises:
        CheckFailedError: it does not build, or does not compute as the manifest says.
    """
    wish = EngineWish(workspace_bytes=_workspace_bytes(work), dla_core=work.wish.dla_core, timing_cache=timing.content)
    built = build_engine(work.bundle.read(graph), tensorrt, wish, work.progress)
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
        timing=replace(timing, content=built.timing_cache or timing.content),
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
    cautions = list(work.here.cautions)
    if taken.gpu is not None and taken.gpu.uuid is None and work.here.serial is None:
        cautions.append(
            "Nothing tells this board and its GPU from others of their kind, so the engine would run there."
        )
    return Attestation(
        created_utc=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        edgefetal=metadata.version("edgefetal"),
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        signer=bundle.signer,
        device=bundle.manifest.device,
        graph=taken.candidate.graph,
        back_end=taken.candidate.backend.name,
        tensorrt=taken.tensorrt,
        engine_sha256=None if taken.plan is None else sha256_of(taken.plan),
        answers_sha256=sha256_of(answers),
        gpu=taken.gpu,
        board=Board(
            model=board.model,
            serial=work.here.serial,
            profile=board.profile,
            jetpack=board.jetpack,
            power_mode=None if board.power_mode is None else board.power_mode.name,
            memory_total_bytes=board.memory_bytes,
        ),
        layers=dict(taken.layers),
        timings=timings,
        checks=checks,
        cautions=tuple(cautions),
    )


def _prepared(frames: int) -> Check:
    return Check(what=f"{frames} golden frames prepared", outcome="bit for bit as where the bundle was built")
