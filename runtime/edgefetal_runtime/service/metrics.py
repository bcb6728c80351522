"""What the service counts and shows to Prometheus. No label holds anything of a patient, an exam or a file."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefetal_devices.telemetry import Telemetry

# Prometheus' text format, which `generate_latest` writes.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# From a GPU's milliseconds to what the watchdog ends.
_LATENCY_BUCKETS_S = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


class Drop(Enum):
    """Why a frame was not analysed."""

    MISSED = "missed"
    TORN = "torn"
    UNREAD = "unread"
    RATE = "rate"
    FAILED = "failed"


class Outcome(Enum):
    """What came of a frame."""

    MEASURED = "measured"
    ABSTAINED = "abstained"


class Metrics:
    """Every metric of the service, in a registry of its own; any thread may change any.

    Args:
        version: edgefetal's.
        bundle_sha256: hash of the bundle that runs.
        source_states: the states that a source can have.
    """

    def __init__(self, version: str, bundle_sha256: str, source_states: Iterable[str]) -> None:
        """Register them, at zero."""
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._totals: dict[Drop | None, int] = {}
        self._source_states = tuple(source_states)
        self._received = self._counter("frames_received", "Frames that arrived whole, as the source counts them")
        self._analysed = self._counter("frames_analysed", "Frames that went through the network to a result")
        self._dropped = self._counter("frames_dropped", "Frames that were not analysed, by cause", "cause")
        self._results = self._counter("results", "Results, by whether something was measured", "outcome")
        self._latency = Histogram(
            "edgefetal_frame_latency_seconds",
            "From a frame's arrival to its result",
            registry=self._registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self._source = self._gauge("source_state", "1 for the state that the source is in, 0 for the others", "state")
        self._sweep = self._gauge("sweep_number", "Sweep of the examination that is going on, from 1; 0 for none")
        self._saved = self._counter("exams_saved", "Examinations that are safely on the disk")
        self._not_saved = self._counter("exams_not_saved", "Examinations that could not be written")
        self._free = self._gauge("store_free_bytes", "Free space where examinations are written")
        self._temperature = self._gauge("temperature_celsius", "Temperature of a sensor of the board", "zone")
        self._clock = self._gauge("clock_hertz", "Clock of a group of cores", "cores")
        self._clock_limit = self._gauge("clock_limit_hertz", "Highest clock that is allowed now", "cores")
        self._memory = self._gauge("memory_available_bytes", "Memory that programs can still have")
        self._throttled = self._gauge("throttled", "1 while the board slows its processors down")
        self._every_nth = self._gauge("analysed_every_nth", "One delivered frame of this many is analysed")
        self._alive = self._gauge("pipeline_alive", "1 while frames come out or idleness is declared")
        self._withheld = self._counter("watchdog_withheld", "Looks at which the watchdog was not fed")
        self._uptime = self._gauge("uptime_seconds", "Since the service was started, by a clock that does not jump")
        info = self._gauge("build_info", "1; the labels say what runs", "version", "bundle_sha256")
        info.labels(version, bundle_sha256).set(1)
        # A series that is not there yet cannot be alarmed on.
        for cause in Drop:
            self._dropped.labels(cause.value)
        for outcome in Outcome:
            self._results.labels(outcome.value)
        for state in self._source_states:
            self._source.labels(state)
        self._every_nth.set(1)

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def source_totals(self, received: int, dropped: Mapping[Drop, int]) -> None:
        """Take over the source's own counts, which only grow.

        Args:
            received: frames that arrived whole.
            dropped: frames that it dropped, by cause.
        """
        with self._lock:
            self._received.inc(self._grown(None, received))
            for cause, total in dropped.items():
                self._dropped.labels(cause.value).inc(self._grown(cause, total))

    def source_state(self, state: str) -> None:
        """Show the source's state, one of those given at the beginning."""
        for other in self._source_states:
            self._source.labels(other).set(other == state)

    def dropped(self, cause: Drop) -> None:
        """Count a frame that was not analysed."""
        self._dropped.labels(cause.value).inc()

    def analysed(self, latency_s: float, outcome: Outcome) -> None:
        """Count a frame that came out, and how long it took from its arrival."""
        self._analysed.inc()
        self._results.labels(outcome.value).inc()
        self._latency.observe(latency_s)

    def sweep(self, number: int) -> None:
        """Show which sweep is going on, from 1; 0 for none."""
        self._sweep.set(number)

    def exam(self, *, saved: bool) -> None:
        """Count an examination."""
        (self._saved if saved else self._not_saved).inc()

    def store(self, free_bytes: int) -> None:
        """Show the free space where examinations are written."""
        self._free.set(free_bytes)

    def board(self, telemetry: Telemetry, *, throttled: bool) -> None:
        """Show what the board says; what it does not know is left out."""
        # A sensor that went quiet must not keep showing its last figure.
        for gauge in (self._temperature, self._clock, self._clock_limit):
            gauge.clear()
        for number, zone in enumerate(telemetry.zones):
            if zone.temperature_c is not None:
                self._temperature.labels(f"{number}-{zone.name}").set(zone.temperature_c)
        for clock in telemetry.clocks:
            if clock.now_hz is not None:
                self._clock.labels(clock.name).set(clock.now_hz)
            if clock.limit_hz is not None:
                self._clock_limit.labels(clock.name).set(clock.limit_hz)
        if telemetry.memory_available_bytes is not None:
            self._memory.set(telemetry.memory_available_bytes)
        self._throttled.set(throttled)

    def rate(self, every_nth: int) -> None:
        """Show the rate in force."""
        self._every_nth.set(every_nth)

    def looked(self, *, alive: bool, uptime_s: float) -> None:
        """Show what the watchdog saw."""
        self._alive.set(alive)
        self._uptime.set(uptime_s)
        if not alive:
            self._withheld.inc()

    def _grown(self, key: Drop | None, total: int) -> int:
        before = self._totals.get(key, 0)
        self._totals[key] = total
        # Less than before means another source, which counts from nothing.
        return total - before if total >= before else total

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"edgefetal_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"edgefetal_{name}", meaning, labels, registry=self._registry)
