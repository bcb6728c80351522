"""`bench.json`: what a run of `edgefetal bench` measured, on what, and whether it was disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION: Final = 1
# A record holds a few hundred figures; a longer file is something else.
_MAX_BYTES: Final = 1 << 22


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClockRecord(_Part):
    """The clock of a group of cores or of a GPU before the run, in MHz, as far as the kernel says.

    Args:
        name: the kernel's name for it.
        limit_mhz: the highest that is allowed.
        max_mhz: the highest that it can do.
        locked: whether it is held at one rate.
    """

    name: str
    limit_mhz: float | None
    max_mhz: float | None
    locked: bool


class MachineRecord(_Part):
    """What was measured on.

    Args:
        board: what the device tree calls it, or null.
        profile: the board's profile, or null.
        processor: model of the processor, or its architecture where the kernel names none.
        architecture: as `uname -m` says.
        cores: that this process may use.
        memory_mb: all memory that the kernel has, or null.
        gpus: what the driver calls its cards.
        kernel: release of the kernel.
        jetpack: the JetPack that stands on it, or null.
        driver: version of NVIDIA's driver for cards, or null.
        power_mode: name of the power mode in force, or null.
        clocks: of cores and GPUs; empty where the kernel does not scale them itself.
        versions: of Python, of this program, and of the libraries that do the work.
    """

    board: str | None
    profile: str | None
    processor: str
    architecture: str
    cores: int
    memory_mb: float | None
    gpus: tuple[str, ...]
    kernel: str | None
    jetpack: str | None
    driver: str | None
    power_mode: str | None
    clocks: tuple[ClockRecord, ...]
    versions: dict[str, str]


class ConditionsRecord(_Part):
    """What the machine was doing.

    Args:
        disturbed: whether figures of this run may be wrong by what else the machine did; `reasons` says why.
        reasons: each a sentence; empty where nothing disturbed.
        seconds: of the run that were watched.
        others_before_cores: cores that other processes used in the moment before the run.
        others_during_cores: in the run, mean.
        others_after_cores: in the moment after it.
        busy_seconds_share: share of the run's seconds in which others used more than a tenth of the cores.
        steal_share: share of the cores' time that a hypervisor gave to others.
        load_before: load average of one minute before the run, or null.
        preempted_per_s: how often a second this process was taken off a core.
        nice: this process's niceness.
        temperature_max_c: the hottest that any sensor was, or null.
        temperature_rise_c: how much hotter the hottest sensor was at the end than at the beginning, or null.
        throttled: whether the machine slowed a processor down.
        power_w: mean of what the module took while the pipeline ran, or null where the board does not measure it.
    """

    disturbed: bool
    reasons: tuple[str, ...]
    seconds: float
    others_before_cores: float
    others_during_cores: float
    others_after_cores: float
    busy_seconds_share: float
    steal_share: float
    load_before: float | None
    preempted_per_s: float
    nice: int
    temperature_max_c: float | None
    temperature_rise_c: float | None
    throttled: bool
    power_w: float | None


class SubjectRecord(_Part):
    """A network as it was run.

    Args:
        name: of its bundle.
        sha256: of its bundle's manifest, which covers all its files.
        graph: `shipped` or `float`.
        precision: what its manifest says of its layers.
        backend: back end that ran it.
        threads: CPU threads that it was given, or null for the back end's own choice.
        lanes: frames of a file that were analysed side by side.
    """

    name: str
    sha256: str
    graph: Literal["shipped", "float"]
    precision: str
    backend: str
    threads: int | None
    lanes: int


class SourceRecord(_Part):
    """The frames.

    Args:
        kind: what kind of source they came from.
        frames: how many.
        size_px: width and height.
        sha256: of all their pixels, which tells whether two runs did the same work.
        simulated: whether they are drawn from a known anatomy.
    """

    kind: str
    frames: int
    size_px: tuple[int, int]
    sha256: str
    simulated: bool


class WarmUpRecord(_Part):
    """Frames that were not counted.

    Args:
        frames: how many.
        stable: whether the medians of two successive windows agreed before the cap was reached.
        rule: the rule, in words.
    """

    frames: int
    stable: bool
    rule: str


class PercentilesRecord(_Part):
    """Times in ms; see `statistics.Percentiles`."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float | None
    max: float
    jitter: float


class StageRecord(_Part):
    """One stage of a frame's way.

    Args:
        name: `decode`, `preprocess`, `copy in`, `infer`, `copy out`, `post-process` or `select`.
        mean_ms: mean over all frames; these sum to glass to result. Null where the stage is not there, or is not told
            from another.
        p50_ms: median, likewise.
        p95_ms: 95th percentile, likewise.
        note: why it has no figures, or what is in it.
    """

    name: str
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    note: str = ""


class RatioRecord(_Part):
    """A ratio pair by pair; `low` and `high` are null where there were too few blocks for an interval."""

    median: float
    low: float | None
    high: float | None
    level: float
    n: int


class StreamRecord(_Part):
    """A file played live, through the capture child, until the last stage was done with a frame.

    Args:
        offered_fps: frames a second that the camera was told to give.
        seconds: for how long.
        received: whole frames that left the driver.
        analysed: frames that came out.
        missed: frames that the device numbered and never gave.
        torn: frames that came damaged.
        unread: frames that a newer one replaced before they were asked for.
        throughput_fps: frames that came out, a second.
        latency_ms: from the driver's time stamp to the result, of the frames after the first second.
    """

    offered_fps: float
    seconds: float
    received: int
    analysed: int
    missed: int
    torn: int
    unread: int
    throughput_fps: float
    latency_ms: PercentilesRecord | None


class ColdStartRecord(_Part):
    """`edgefetal run` on the same frames in fresh processes.

    Args:
        runs: how many.
        first_result_s: from the start of the process to its first result and back at the prompt, less the time from
            the first result to the last; each run. The true time is shorter by what it takes to write the examination
            and to end.
        cpu_s: processor seconds of each whole run.
        help_s: `edgefetal --help`, each run.
        help_cpu_s: its processor seconds.
    """

    runs: int
    first_result_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    help_s: tuple[float, ...]
    help_cpu_s: tuple[float, ...]


class VersusRecord(_Part):
    """Another network on the same frames in turns; ratios say how many times as fast the one that is benched is.

    Args:
        against: the other.
        frame: seconds of a frame's preprocessing, network and geometry.
        network: of the network alone.
        clock: what the verdict is read from: `cpu`, the processor's time of the thread that runs the graph, which other
            processes hardly touch; or `wall`, where the graph runs in other threads, another process or a GPU.
        frame_wall: `frame` by the wall clock.
        network_wall: `network` by the wall clock.
        verdict: what it shows, in a sentence.
    """

    against: SubjectRecord
    frame: RatioRecord
    network: RatioRecord
    clock: Literal["cpu", "wall"]
    frame_wall: RatioRecord
    network_wall: RatioRecord
    verdict: str


class AccuracyRecord(_Part):
    """Errors of head circumferences.

    Args:
        n: heads whose truth is known.
        measured: of them, those that were measured.
        mae_mm: mean size of the error of these, or null.
        max_mm: the largest, or null.
    """

    n: int
    measured: int
    mae_mm: float | None
    max_mm: float | None


class PeerRecord(_Part):
    """Another tool, or ours in the first row, at the same work.

    Args:
        name: as it was asked for.
        title: what it is.
        settings: its version and how it was used, or null.
        unavailable: why it has no figures, or null.
        prepare_s: seconds until it was ready: loading, compiling, quantising.
        exams_per_minute: recordings that it examines in a minute, by the median.
        ours_times_as_fast: how many times as fast ours examined the same recordings, one by one; null for ours.
        peak_rss_mb: the most memory that its process had after it was ready, or null.
        recordings: its errors on recordings whose truth is known, or null.
        pictures: on labelled pictures, or null.
        ours_worse_mm: by how much the error of ours is larger on the pictures that both measured, mean and its
            one-sided 95 % bound; negative where it is smaller; null without pictures.
        verdict: how ours stands beside it, in words; null for ours.
    """

    name: str
    title: str
    settings: str | None
    unavailable: str | None = None
    prepare_s: float | None = None
    exams_per_minute: float | None = None
    ours_times_as_fast: RatioRecord | None = None
    peak_rss_mb: float | None = None
    recordings: AccuracyRecord | None = None
    pictures: AccuracyRecord | None = None
    ours_worse_mm: tuple[float, float] | None = None
    verdict: str | None = None


class PeersRecord(_Part):
    """Other tools at the same work, in turns.

    Args:
        frames: of a recording.
        recordings: how many were examined by each.
        repeated: whether they are one and the same, examined over and over.
        simulated: whether they were drawn.
        pictures: which labelled pictures were measured, in words, or null.
        rows: ours first.
    """

    frames: int
    recordings: int
    repeated: bool
    simulated: bool
    pictures: str | None
    rows: tuple[PeerRecord, ...] = Field(min_length=1)


class BenchRecord(_Part):
    """The whole record.

    Args:
        schema_version: version of this layout.
        created_utc: when, ISO 8601.
        subject: what was benched.
        source: on which frames.
        machine: on what.
        conditions: what the machine was doing.
        warm_up: frames before.
        stages: a frame's way, one frame at a time.
        stages_over_glass: sum of the stages' means over the mean of glass to result.
        latency_ms: glass to result: from asking a file for a frame to its result, one frame at a time.
        latency_cdf_ms: the same at 0, 1, ... 100 %.
        sweep_end_ms: median of what it takes to end a sweep: to choose among its best frames and to measure.
        throughput_fps: frames a second of a whole examination, whose stages overlap or which has lanes; median.
        bare_inference_fps: frames a second of the network alone on the same frames, prepared beforehand, in as many
            lanes; median.
        pipeline_over_bare: the one over the other, pair by pair; median.
        pipeline_over_bare_interval: its interval, or null where there were too few pairs.
        cpu_cores: processor seconds a second of the whole examination.
        energy_j_per_frame: of the whole module, or null where the board does not measure it.
        first_result_s: median of `cold_start`, or null.
        peak_rss_mb: most memory that `edgefetal run` on these frames had, or null.
        gpu_memory_mb: memory that it took of the GPU, or null where there is none or nobody says.
        cold_start: fresh processes, or null.
        stream: live, or null.
        versus: another network beside it, or null.
        peers: other tools that did the same work, or null.
        notes: what was left out, and why.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created_utc: str
    subject: SubjectRecord
    source: SourceRecord
    machine: MachineRecord
    conditions: ConditionsRecord
    warm_up: WarmUpRecord
    stages: tuple[StageRecord, ...] = Field(min_length=1)
    stages_over_glass: float
    latency_ms: PercentilesRecord
    latency_cdf_ms: tuple[float, ...]
    sweep_end_ms: float | None
    throughput_fps: float
    bare_inference_fps: float
    pipeline_over_bare: float
    pipeline_over_bare_interval: tuple[float, float] | None
    cpu_cores: float
    energy_j_per_frame: float | None
    first_result_s: float | None
    peak_rss_mb: float | None
    gpu_memory_mb: float | None
    cold_start: ColdStartRecord | None
    stream: StreamRecord | None
    versus: VersusRecord | None
    peers: PeersRecord | None = None
    notes: tuple[str, ...] = ()


def read_record(path: Path) -> BenchRecord:
    """Read a record.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); name a file that `edgefetal bench --json` wrote."
        raise InputError(message) from error
    try:
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path} is too long for a record; name a file that `edgefetal bench --json` wrote.")
        return BenchRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = (
            f"{path} is no record of this version ({where}: {first['msg']}); write it anew with `edgefetal bench`."
        )
        raise InputError(message) from error
