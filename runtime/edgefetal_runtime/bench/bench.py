"""A whole run: every part in its order, while the machine is watched."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from edgefetal_devices.errors import EdgeFetalError, InputError
from edgefetal_runtime.bench.cold import time_cold_start
from edgefetal_runtime.bench.conditions import PIPELINE, Watch
from edgefetal_runtime.bench.machine import read_machine
from edgefetal_runtime.bench.record import BenchRecord, PercentilesRecord, SourceRecord, SubjectRecord
from edgefetal_runtime.bench.stages import stage_records, time_frames
from edgefetal_runtime.bench.statistics import percentiles
from edgefetal_runtime.bench.stream import time_stream
from edgefetal_runtime.bench.versus import clock_of, time_versus, versus_record
from edgefetal_runtime.bench.whole import time_whole
from edgefetal_runtime.infer.cores import lanes_for_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_runtime.bench.record import ColdStartRecord, StreamRecord, VersusRecord
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.live.live import LiveSource
    from edgefetal_runtime.sources.protocol import Source

# Frames that two networks are compared on are kept: so many at most.
_KEPT_FRAMES: Final = 32
_LEAST_FRAMES: Final = 2
_CDF_POINTS: Final = 101

Graph = Literal["shipped", "float"]


@dataclass(frozen=True)
class Side:
    """A network that is benched, or that another is compared with.

    Args:
        bundle: its bundle.
        graph: which of the bundle's graphs.
        threads: CPU threads, or None for the back end's own choice.
        load: loads it, to run so many frames side by side.
    """

    bundle: Bundle
    graph: Graph
    threads: int | None
    load: Callable[[int], Network]

    def record(self, network: Network, lanes: int) -> SubjectRecord:
        """Write it down.

        Args:
            network: it, loaded.
            lanes: frames of a file that are analysed side by side.
        """
        manifest = self.bundle.manifest
        precisions = sorted({layers.precision for layers in manifest.layers})
        return SubjectRecord(
            name=manifest.name,
            sha256=self.bundle.sha256,
            graph=self.graph,
            precision="fp32" if self.graph == "float" else "+".join(precisions),
            backend=network.backend.name,
            threads=self.threads,
            lanes=lanes,
        )


@dataclass(frozen=True)
class Input:
    """What is benched on.

    Args:
        source: the frames; it can be read again.
        live: the same frames, played live at so many frames a second; None leaves the live part out.
        fps: that rate.
        simulated: whether the frames are a simulation.
    """

    source: Source
    live: LiveSource | None
    fps: float
    simulated: bool


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        frames: timed one at a time.
        warm_up_cap: frames of warm-up at most.
        pairs: passes of the whole examination and of the network alone, in turns.
        blocks: of two networks in turns; for each both are loaded anew.
        rounds: of each block.
        stream_s: seconds of the live part.
        cold_starts: fresh processes.
    """

    frames: int = 300
    warm_up_cap: int = 300
    pairs: int = 11
    blocks: int = 12
    rounds: int = 40
    stream_s: float = 10.0
    cold_starts: int = 5


@dataclass(frozen=True)
class Commands:
    """What is started in fresh processes.

    Args:
        run: `edgefetal run` on the same frames, with absolute paths, without `--out` and `--json`.
        help: `edgefetal --help`.
    """

    run: Sequence[str]
    help: Sequence[str]


def run_bench(
    side: Side,
    against: Side | None,
    frames: Input,
    plan: Plan,
    commands: Commands | None,
    on_part: Callable[[str], None] = lambda _: None,
) -> BenchRecord:
    """Measure everything.

    Args:
        side: what is benched.
        against: what it is compared with, or None.
        frames: what it is benched on.
        plan: how much is measured.
        commands: for the cold start; None leaves it out.
        on_part: called before each part, with its name.

    Raises:
        InputError: the source has fewer than two frames.
        SourceError: a frame cannot be read.
        EnvironmentLacksError: a back end cannot run here.
    """
    source, kept = _looked_at(frames)
    # One frame at a time, and live, all threads work on one frame; of a file several frames are worked on.
    network, for_files = side.load(1), side.load(lanes_for_files(side.threads))
    subject = side.record(network, for_files.backend.lanes)
    notes: list[str] = []
    with Watch() as watch:
        on_part("stages")
        times = time_frames(frames.source, network, plan.frames, cap=plan.warm_up_cap)
        on_part("whole examination")

        def on_pass(name: str) -> None:
            watch.phase(PIPELINE) if name == "whole" else watch.phase()

        throughput = time_whole(
            frames.source, side.bundle, for_files, plan.pairs, simulated=frames.simulated, on_pass=on_pass
        )
        watch.phase()
        on_part("live")
        stream = _streamed(side, network, frames, plan)
        on_part("beside another")
        versus = None if against is None else _compared(side, subject, against, kept, plan)
        on_part("cold start")
        cold, peak_rss_mb = _started(commands, plan, notes)
    conditions = watch.conditions(warm_up_stable=times.warm_up.stable)
    energy_j = None if conditions.power_w is None else conditions.power_w / throughput.whole_fps
    ratio = throughput.ratio
    return BenchRecord(
        created_utc=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        subject=subject,
        source=source,
        machine=read_machine(),
        conditions=conditions,
        warm_up=times.warm_up,
        stages=stage_records(times, network.backend),
        stages_over_glass=times.sum_over_glass,
        latency_ms=PercentilesRecord(**asdict(percentiles(times.glass_s))),
        latency_cdf_ms=tuple(np.percentile(1e3 * times.glass_s, np.linspace(0, 100, _CDF_POINTS)).round(3).tolist()),
        sweep_end_ms=1e3 * float(np.median(times.sweep_ends_s)) if times.sweep_ends_s else None,
        throughput_fps=throughput.whole_fps,
        bare_inference_fps=throughput.bare_fps,
        pipeline_over_bare=ratio.median,
        pipeline_over_bare_interval=None if ratio.low is None or ratio.high is None else (ratio.low, ratio.high),
        cpu_cores=throughput.cpu_cores,
        energy_j_per_frame=energy_j,
        first_result_s=None if cold is None else float(np.median(cold.first_result_s)),
        peak_rss_mb=peak_rss_mb,
        gpu_memory_mb=None,
        cold_start=cold,
        stream=stream,
        versus=versus,
        notes=tuple(notes),
    )


def _looked_at(frames: Input) -> tuple[SourceRecord, list[Frame]]:
    """Read the source once: what it is, and frames to compare networks on.

    Raises:
        InputError: it has fewer than two frames.
    """
    digest = hashlib.sha256()
    kept: list[Frame] = []
    count = 0
    for frame in frames.source.frames():
        digest.update(np.ascontiguousarray(frame.pixels).tobytes())
        if count < _KEPT_FRAMES:
            kept.append(frame)
        count += 1
    if count < _LEAST_FRAMES:
        raise InputError("One frame is too few to bench on; give a video or another recording.")
    height_px, width_px = kept[0].pixels.shape
    record = SourceRecord(
        kind=frames.source.kind,
        frames=count,
        size_px=(width_px, height_px),
        sha256=digest.hexdigest(),
        simulated=frames.simulated,
    )
    return record, kept


def _streamed(side: Side, network: Network, frames: Input, plan: Plan) -> StreamRecord | None:
    if frames.live is None:
        return None
    return time_stream(frames.live, side.bundle, network, frames.fps, plan.stream_s, simulated=frames.simulated)


def _compared(side: Side, subject: SubjectRecord, against: Side, kept: Sequence[Frame], plan: Plan) -> VersusRecord:
    loaded = [one.load(1) for one in (side, against)]
    same_threads = side.threads if side.threads == against.threads else None
    versus = time_versus(lambda: side.load(1), lambda: against.load(1), kept, blocks=plan.blocks, rounds=plan.rounds)
    return versus_record(versus, subject, against.record(loaded[1], 1), clock_of(loaded, same_threads))


def _started(commands: Commands | None, plan: Plan, notes: list[str]) -> tuple[ColdStartRecord | None, float | None]:
    """Time the cold start; a bundle that `edgefetal run` refuses has none, which a note says."""
    if commands is None or not plan.cold_starts:
        return None, None
    try:
        return time_cold_start(commands.run, commands.help, plan.cold_starts)
    except EdgeFetalError as error:
        notes.append(f"The cold start and the memory were not measured: {error}")
        return None, None
