"""A record as tables of text, for the terminal, the page and the document alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from edgefetal_runtime.bench.record import (
        AccuracyRecord,
        BenchRecord,
        PeersRecord,
        PercentilesRecord,
        RatioRecord,
    )

_NONE: Final = "-"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        heads: heads of the columns.
        rows: cells, as many in each.
        note: what to know when reading it, or nothing.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


# Tables that the page shows a picture with.
STAGES, LATENCY = "Where a frame's time goes", "Latency"


def titled_tables(record: BenchRecord) -> dict[str, Table]:
    """Return all tables of a record by their titles, in the order in which they are read."""
    peers = record.peers
    beside = {} if peers is None else {"Beside other tools": peer_table(peers), "How": peer_settings_table(peers)}
    return {
        STAGES: stage_table(record),
        LATENCY: latency_table(record),
        "Throughput": throughput_table(record),
        "Start and memory": start_table(record),
        **beside,
        "The machine": machine_table(record),
        "What it was doing": conditions_table(record),
    }


def figure(value: float | None, digits: int = 2) -> str:
    """Write a figure, or a dash where there is none."""
    return _NONE if value is None else f"{value:.{digits}f}"


def ratio_text(ratio: RatioRecord) -> str:
    """Write a ratio with its interval."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.median:.3f} ({ratio.n} blocks are too few for an interval)"
    return f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def headline(record: BenchRecord) -> tuple[str, ...]:
    """Say in a few sentences what was found, and first whether it can be believed."""
    lines = [f"DISTURBED: {'; '.join(record.conditions.reasons)}."] if record.conditions.disturbed else []
    interval = record.pipeline_over_bare_interval
    between = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    lines.append(
        f"A whole examination runs at {record.throughput_fps:.1f} frames a second, {record.pipeline_over_bare:.3f}"
        f"{between} of the network alone; a frame by itself takes {record.latency_ms.p50:.1f} ms from the file to its "
        "result."
    )
    if record.versus is not None:
        lines.append(record.versus.verdict)
    return tuple(lines)


def stage_table(record: BenchRecord) -> Table:
    """Write the stages, and what they sum to."""
    rows = [
        (stage.name, figure(stage.mean_ms), figure(stage.p50_ms), figure(stage.p95_ms), stage.note)
        for stage in record.stages
    ]
    total = sum(stage.mean_ms for stage in record.stages if stage.mean_ms is not None)
    latency = record.latency_ms
    rows.append(("sum of the stages", figure(total), _NONE, _NONE, f"{record.stages_over_glass:.1%} of the line below"))
    rows.append(("glass to result", figure(latency.mean), figure(latency.p50), figure(latency.p95), ""))
    rows.append(("end of a sweep", _NONE, figure(record.sweep_end_ms), _NONE, "once a sweep: choose and measure"))
    heads = ("stage", "mean (ms)", "p50 (ms)", "p95 (ms)", "")
    return Table(heads, tuple(rows), "One frame at a time. In an examination the stages overlap.")


def latency_table(record: BenchRecord) -> Table:
    """Write the percentiles of files, and of the live source."""
    rows = [_percentiles("one frame at a time", record.latency_ms)]
    stream = record.stream
    if stream is not None and stream.latency_ms is not None:
        rows.append(_percentiles(f"live at {stream.offered_fps:g} frames a second", stream.latency_ms))
    heads = ("glass to result (ms)", "frames", "p50", "p90", "p95", "p99", "max", "jitter")
    return Table(heads, tuple(rows))


def _percentiles(name: str, of: PercentilesRecord) -> tuple[str, ...]:
    figures = (of.p50, of.p90, of.p95, of.p99, of.max, of.jitter)
    return (name, str(of.n), *(figure(value, 1) for value in figures))


def throughput_table(record: BenchRecord) -> Table:
    """Write frames a second, what was dropped, and what they cost."""
    interval = record.pipeline_over_bare_interval
    between = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    rows = [
        ("whole examination (frames a second)", figure(record.throughput_fps, 1)),
        ("network alone (frames a second)", figure(record.bare_inference_fps, 1)),
        ("the one over the other, pair by pair", f"{record.pipeline_over_bare:.3f}{between}"),
        ("cores in use", figure(record.cpu_cores)),
        ("energy a frame (J)", figure(record.energy_j_per_frame, 3)),
    ]
    stream = record.stream
    if stream is not None:
        dropped = {"missed": stream.missed, "torn": stream.torn, "unread": stream.unread}
        said = ", ".join(f"{count} {cause}" for cause, count in dropped.items() if count) or "none"
        rows.append(
            (f"live at {stream.offered_fps:g} frames a second: analysed a second", f"{stream.throughput_fps:.1f}")
        )
        rows.append((f"live: dropped, of {stream.received + stream.missed + stream.torn}", said))
    if record.versus is not None:
        against = record.versus.against
        other = f"{against.name} ({against.graph} graph, {against.precision}, {against.backend})"
        rows.append((f"times as fast as {other}, a frame", ratio_text(record.versus.frame)))
        rows.append(("the same, the network alone", ratio_text(record.versus.network)))
        rows.append(("the same, a frame by the wall clock", ratio_text(record.versus.frame_wall)))
    return Table(("", ""), tuple(rows))


def start_table(record: BenchRecord) -> Table:
    """Write the cold start and the memory."""
    cold = record.cold_start
    rows = [
        ("first result of `edgefetal run` in a fresh process, median (s)", figure(record.first_result_s)),
        ("processor seconds of that run, median", _NONE if cold is None else figure(float(np.median(cold.cpu_s)))),
        ("`edgefetal --help`, median (s)", _NONE if cold is None else figure(float(np.median(cold.help_s)))),
        ("its processor seconds, median", _NONE if cold is None else figure(float(np.median(cold.help_cpu_s)))),
        ("most memory (MB)", figure(record.peak_rss_mb, 0)),
        ("memory of the GPU (MB)", figure(record.gpu_memory_mb, 0)),
    ]
    return Table(("", ""), tuple(rows))


def machine_table(record: BenchRecord) -> Table:
    """Write what was measured, on what."""
    machine, subject, source = record.machine, record.subject, record.source
    clocks = ", ".join(
        f"{clock.name} at most {figure(clock.limit_mhz, 0)} of {figure(clock.max_mhz, 0)} MHz"
        f"{', locked' if clock.locked else ''}"
        for clock in machine.clocks
    )
    width_px, height_px = source.size_px
    threads = "its own choice of threads"
    if subject.threads is not None:
        threads = f"{subject.threads} thread{'s' if subject.threads > 1 else ''}"
    lanes = "" if subject.lanes == 1 else f"; of files {subject.lanes} frames side by side"
    rows = [
        ("bundle", f"{subject.name} {subject.sha256[:12]}, {subject.graph} graph, {subject.precision}"),
        ("back end", f"{subject.backend}, {threads}{lanes}"),
        (
            "frames",
            f"{source.frames} of {width_px} x {height_px}, {source.kind}{', simulated' if source.simulated else ''}",
        ),
        ("board", machine.board or "not a known one"),
        ("processor", f"{machine.processor}, {machine.cores} cores, {machine.architecture}"),
        ("GPU", ", ".join(machine.gpus) or "none"),
        ("memory (MB)", figure(machine.memory_mb, 0)),
        ("power mode", machine.power_mode or "none"),
        ("clocks", clocks or "not told by the kernel"),
        (
            "JetPack, kernel, driver",
            f"{machine.jetpack or _NONE}, {machine.kernel or _NONE}, {machine.driver or _NONE}",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
    ]
    return Table(("", ""), tuple(rows))


def conditions_table(record: BenchRecord) -> Table:
    """Write what the machine was doing."""
    of = record.conditions
    rows = [
        ("measured", f"{record.created_utc}, {of.seconds:.0f} s"),
        ("disturbed", "; ".join(of.reasons) if of.disturbed else "no"),
        (
            "cores in use by others before, during, after",
            f"{of.others_before_cores:.2f}, {of.others_during_cores:.2f}, {of.others_after_cores:.2f}",
        ),
        ("load average before", figure(of.load_before)),
        ("taken off a core (times a second), niceness", f"{of.preempted_per_s:.1f}, {of.nice}"),
        (
            "temperature: highest, rise (degrees C)",
            f"{figure(of.temperature_max_c, 1)}, {figure(of.temperature_rise_c, 1)}",
        ),
        ("throttled", "yes" if of.throttled else "no"),
        ("warm-up", f"{record.warm_up.frames} frames, {record.warm_up.rule}"),
    ]
    return Table(("", ""), tuple(rows))


def peer_table(peers: PeersRecord) -> Table:
    """Write other tools beside ours: speed, memory, and errors of the same heads."""
    rows = []
    for row in peers.rows:
        if row.unavailable is not None:
            rows.append((row.name, *[_NONE] * 5, f"not compared: {row.unavailable}"))
            continue
        ratio = row.ours_times_as_fast
        rows.append(
            (
                row.name,
                figure(row.exams_per_minute, 1),
                _NONE if ratio is None else _short_ratio(ratio),
                figure(row.peak_rss_mb, 0),
                _errors(row.recordings),
                _errors(row.pictures),
                row.verdict or "what is benched",
            )
        )
    heads = (
        "tool",
        "exams a minute",
        "ours: times as fast",
        "memory (MB)",
        "HC of sweeps",
        "HC of pictures",
        "ours is",
    )
    drawn = "simulated " if peers.simulated else ""
    what = f"{peers.recordings} {drawn}sweeps of {peers.frames} frames"
    if peers.repeated:
        what = f"one {drawn}recording of {peers.frames} frames, {peers.recordings} times"
    pictures = "" if peers.pictures is None else f", and {peers.pictures}"
    note = (
        f"Each tool in a process of its own, in turns: {what}{pictures}. HC: mean and largest error in mm (measured of "
        "all). Memory: the most that its process had once it was ready. The error is no larger where, on the pictures "
        "that both measured, that of ours is at most 0.1 mm larger on average, at a one-sided 95 % bound. The machine "
        "is not watched meanwhile: ratios hold on a busy one, exams a minute do not."
    )
    return Table(heads, tuple(rows), note)


def peer_settings_table(peers: PeersRecord) -> Table:
    """Write what each tool is and how it was used."""
    rows = [(row.name, row.title, row.settings or _NONE, figure(row.prepare_s, 1)) for row in peers.rows]
    return Table(("tool", "what it is", "how it was used", "ready after (s)"), tuple(rows))


def _short_ratio(ratio: RatioRecord) -> str:
    between = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{ratio.median:.2f}{between}"


def _errors(of: AccuracyRecord | None) -> str:
    return _NONE if of is None else f"{figure(of.mae_mm)}, {figure(of.max_mm, 1)} ({of.measured} of {of.n})"
