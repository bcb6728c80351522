"""A live examination: a source, the pipeline, the service round it and the store under it, put together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.exam.measure import size_px
from edgefetal_runtime.exam.pipeline import Listener, examine
from edgefetal_runtime.scale import NoScale
from edgefetal_runtime.service.memory import give_back_freed
from edgefetal_runtime.service.metrics import Drop, Outcome
from edgefetal_runtime.service.pulse import Idle
from edgefetal_runtime.sources.live.status import LiveState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefetal_runtime.exam.pipeline import ExamResult, RunningSweep, Seen, SweepResult
    from edgefetal_runtime.exam.record import Exam
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.service.service import Service
    from edgefetal_runtime.sources.live.live import LiveSource
    from edgefetal_runtime.sources.live.status import LiveStatus
    from edgefetal_runtime.sweep.finder import SweepFinder
    from edgefetal_runtime.sweep.hand import Hand

# What changes slower than frames is looked at so often.
_LOOK_S = 0.5
# Latencies are counted in bins of a tenth of a millisecond up to ten seconds, which is exact enough and never grows.
_BIN_S, _BINS = 1e-4, 100_000
_IDLE = {
    LiveState.OPENING: Idle.NO_SOURCE,
    LiveState.LOST: Idle.NO_SOURCE,
    LiveState.NO_SIGNAL: Idle.NO_SIGNAL,
    LiveState.ENDED: Idle.STOPPING,
}


class Latencies:
    """How long frames took, in constant memory."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts = np.zeros(_BINS + 1, np.int64)
        self._largest_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[min(max(int(seconds / _BIN_S), 0), _BINS)] += 1
        self._largest_s = max(self._largest_s, seconds)

    def quantile_ms(self, share: float) -> float | None:
        """Return the latency that so many frames stay within, in ms; None where there were none."""
        total = int(self._counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return min((place + 1) * _BIN_S, self._largest_s) * 1e3

    def to_json(self) -> dict[str, float | None]:
        """Return the usual quantiles, in ms."""
        names = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
        figures = {name: self.quantile_ms(share) for name, share in names.items()}
        return {**figures, "max": self._largest_s * 1e3 if figures["p50"] is not None else None}


@dataclass(frozen=True)
class LiveView:
    """What a screen shows of a live examination.

    Args:
        status: of the source.
        analysed: frames that came out.
        thinned: frames left out to keep up or keep cool.
        latency_ms: median and 99th percentile from the driver to the result, or None before the first.
        sweep: name of the sweep that runs, or None between sweeps.
        hand: how it is being done, or how the last one was; None before the first.
        seen: structures outlined in the last frame.
        best: the last value of each principal measure, with its interval.
        scale: where the pixel size came from, or why there is none.
        notes: what was left out of the store, and why.
    """

    status: LiveStatus
    analysed: int
    thinned: int
    latency_ms: tuple[float, float] | None
    sweep: str | None
    hand: Hand | None
    seen: tuple[str, ...]
    best: Mapping[str, tuple[float, tuple[float, float] | None]]
    scale: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Keeper:
    """Where a live examination is kept while it runs; any of it may be nothing.

    Args:
        take_picture: takes each picture as soon as its sweep is over.
        checkpoint: takes the record as it is after each sweep.
        record_frame: takes every frame that arrives, where the video is kept.
        notes: says what was left out.
    """

    take_picture: Callable[[str, bytes], None] | None = None
    checkpoint: Callable[[Exam], None] = lambda _: None
    record_frame: Callable[[Frame], None] = lambda _: None
    notes: Callable[[], tuple[str, ...]] = tuple


@dataclass
class _Now:
    """What the last frames and sweeps said; guarded by the session's lock."""

    analysed: int = 0
    thinned: int = 0
    sweep: str | None = None
    hand: Hand | None = None
    seen: tuple[str, ...] = ()
    scale: str = ""
    best: dict[str, tuple[float, tuple[float, float] | None]] = field(default_factory=dict)


class LiveSession:
    """One live examination, run in the thread that calls `run`; `view` and `stop` may be called from any.

    Args:
        source: the live source.
        bundle: the bundle that the network is of.
        network: the network, loaded.
        finder: finds the sweeps.
        service: watches; it is already running.
        keeper: where the examination is kept.
    """

    def __init__(
        self,
        source: LiveSource,
        bundle: Bundle,
        network: Network,
        finder: SweepFinder,
        service: Service,
        keeper: Keeper | None = None,
    ) -> None:
        """Open nothing yet."""
        self._source, self._bundle, self._network = source, bundle, network
        self._finder, self._service, self._keeper = finder, service, keeper or Keeper()
        self._lock = threading.Lock()
        self._now = _Now()
        self._latencies = Latencies()
        self._looked_s = 0.0
        self._last_reason = ""

    @property
    def kind(self) -> str:
        """Return what the source is."""
        return self._source.kind

    @property
    def frame_count(self) -> None:
        """Return None: nobody knows how long it will run."""
        return

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are to be analysed; the others are counted."""
        for frame in self._source.frames():
            self._keeper.record_frame(frame)
            self._service.pulse.busy()
            if not self._service.admit():
                self._now.thinned += 1
                continue
            self._service.pulse.frame_begun()
            yield frame

    def run(self, name: str, age: GestationalAge | None = None, *, simulated: bool = False) -> ExamResult:
        """Examine until the source ends or is stopped.

        Args:
            name: how the user named the source.
            age: the gestational age, where it is known beforehand.
            simulated: the source is a simulation.
        """
        listener = Listener(self._on_frame, self._on_sweep, self._keeper.take_picture)
        try:
            return examine(
                self, name, self._bundle, self._network, listener, age, finder=self._finder, simulated=simulated
            )
        finally:
            self._look()

    def stop(self) -> None:
        """End the examination; what was seen is measured. From any thread and from a signal handler."""
        self._source.stop()

    def why_idle(self) -> Idle | None:
        """Say what is waited for, or None while frames are expected; asked by the watchdog from its own thread."""
        self._count()
        return _IDLE.get(self._source.status.state)

    def view(self) -> LiveView:
        """Return what a screen shows now."""
        with self._lock:
            now = self._now
            median_ms, late_ms = self._latencies.quantile_ms(0.5), self._latencies.quantile_ms(0.99)
            return LiveView(
                status=self._source.status,
                analysed=now.analysed,
                thinned=now.thinned,
                latency_ms=None if median_ms is None or late_ms is None else (median_ms, late_ms),
                sweep=now.sweep,
                hand=now.hand,
                seen=now.seen,
                best=dict(now.best),
                scale=now.scale,
                notes=self._keeper.notes(),
            )

    def report(self) -> dict[str, Any]:
        """Return the last reason why no frames came, the counts and the latencies of the session, as JSON values."""
        view, status = self.view(), self._source.status
        return {
            "reason": self._last_reason,
            "received": status.received,
            "delivered": status.delivered,
            "analysed": view.analysed,
            "dropped": {
                "missed": status.dropped.missed,
                "torn": status.dropped.torn,
                "unread": status.dropped.unread,
                "thinned": view.thinned,
            },
            "format_changes": status.format_changes,
            "reopened": status.reopened,
            "latency_ms": self._latencies.to_json(),
        }

    def _on_frame(self, seen: Seen, sweep: RunningSweep | None) -> None:
        """Count a frame that came out."""
        frame = seen.finding.frame
        latency_s = seen.done_s - (seen.done_s if frame.arrived_s is None else frame.arrived_s)
        shown = tuple(structure for structure, found in seen.finding.found.items() if size_px(found) > 0)
        self._service.pulse.frame_done()
        self._service.metrics.analysed(latency_s, Outcome.MEASURED if shown else Outcome.ABSTAINED)
        self._service.governor.observe(latency_s)
        with self._lock:
            self._latencies.add(latency_s)
            self._now.analysed += 1
            self._now.seen = shown
            self._now.sweep = None if sweep is None else sweep.name
            self._now.scale = frame.scale.reason if isinstance(frame.scale, NoScale) else frame.scale.origin
        if seen.done_s - self._looked_s >= _LOOK_S:
            self._looked_s = seen.done_s
            self._look()
            if sweep is not None:
                hand = sweep.hand()
                with self._lock:
                    self._now.hand = hand

    def _on_sweep(self, result: SweepResult, record: Callable[[], Exam]) -> None:
        """Keep what a sweep gave."""
        with self._lock:
            for structure in result.structures:
                principal = PRINCIPAL[structure.structure]
                value = structure.measured[principal]
                if isinstance(value, Measured):
                    self._now.best[principal.name] = (value.value, value.interval)
            self._now.hand = result.hand
        self._keeper.checkpoint(record())
        give_back_freed()

    def _look(self) -> None:
        self._count()
        self._service.metrics.sweep(self._finder.number)

    def _count(self) -> None:
        """Pass the source's totals on."""
        status = self._source.status
        if status.state not in {LiveState.LIVE, LiveState.ENDED}:
            self._last_reason = status.reason
        self._service.metrics.source_state(status.state.value)
        dropped = {
            Drop.MISSED: status.dropped.missed,
            Drop.TORN: status.dropped.torn,
            Drop.UNREAD: status.dropped.unread,
        }
        self._service.metrics.source_totals(status.received + status.dropped.missed + status.dropped.torn, dropped)
