"""Frames as they happen: how long one takes from the driver to its result, and how many are dropped on the way."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from edgefetal_runtime.bench.record import PercentilesRecord, StreamRecord
from edgefetal_runtime.bench.statistics import percentiles
from edgefetal_runtime.exam.pipeline import Listener, examine
from edgefetal_runtime.sweep.finder import SweepFinder

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.exam.pipeline import RunningSweep, Seen
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.live.live import LiveSource

# The capture child and the first frames settle.
_SETTLE_S: Final = 1.0


class _Arrivals:
    """Collects when frames arrived and when they were done, and ends the source when the time is over."""

    def __init__(self, seconds: float, stop: Callable[[], None]) -> None:
        self._seconds, self._stop = seconds, stop
        self.first_s: float | None = None
        self.last_s = 0.0
        self.analysed = 0
        self.latencies_s: list[float] = []

    def take(self, seen: Seen, _sweep: RunningSweep | None = None) -> None:
        arrived_s = seen.finding.frame.arrived_s
        if arrived_s is None:
            return
        self.first_s = arrived_s if self.first_s is None else self.first_s
        self.last_s = seen.done_s
        self.analysed += 1
        since_first_s = arrived_s - self.first_s
        if since_first_s >= _SETTLE_S:
            self.latencies_s.append(seen.done_s - arrived_s)
        if since_first_s >= _SETTLE_S + self._seconds:
            self._stop()


def time_stream(
    source: LiveSource, bundle: Bundle, network: Network, fps: float, seconds: float, *, simulated: bool
) -> StreamRecord:
    """Examine a live source for a while.

    Nothing is left out to keep up or to keep cool, as the service would: a frame that cannot be taken is dropped by the
    source, and counted.

    Args:
        source: the live source, not yet opened; it is stopped.
        bundle: the network's.
        network: the network.
        fps: frames a second that it was told to give.
        seconds: for how long, after the first second.
        simulated: the source is a simulation.

    Raises:
        EnvironmentLacksError: the source cannot be opened on this machine.
    """
    arrivals = _Arrivals(seconds, source.stop)
    since_s = time.monotonic()
    examine(source, "bench", bundle, network, Listener(arrivals.take), finder=SweepFinder(), simulated=simulated)
    status = source.status
    lasted_s = max(arrivals.last_s - (since_s if arrivals.first_s is None else arrivals.first_s), 1e-9)
    latency = PercentilesRecord(**asdict(percentiles(arrivals.latencies_s))) if arrivals.latencies_s else None
    return StreamRecord(
        offered_fps=fps,
        seconds=lasted_s,
        received=status.received,
        analysed=arrivals.analysed,
        missed=status.dropped.missed,
        torn=status.dropped.torn,
        unread=status.dropped.unread,
        throughput_fps=arrivals.analysed / lasted_s,
        latency_ms=latency,
    )
