"""The parts of a service put together: watchdog, health, telemetry and rate, round the one loop that analyses."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefetal_devices.telemetry import read_telemetry
from edgefetal_runtime.service.governor import DEFAULT_LIMITS, Governor, Limits, Throttling, headroom_c
from edgefetal_runtime.service.health import LOOPBACK, Health, HealthServer
from edgefetal_runtime.service.logs import Event, Field, log_event
from edgefetal_runtime.service.metrics import Drop, Metrics, Outcome
from edgefetal_runtime.service.notify import Notifier, notifier_from, watchdog_s
from edgefetal_runtime.service.pulse import Idle, Liveness, Pulse
from edgefetal_runtime.service.watchdog import Verdict, Watchdog, period_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

_LOG = logging.getLogger(__name__)
_JOIN_S = 5.0


@dataclass(frozen=True)
class ServiceSettings:
    """What a clinic may set.

    Args:
        store: folder where examinations are written.
        host: address for /health and /metrics.
        port: port for them; 0 takes a free one, None serves none.
        frame_limit_s: within which a frame must come out, while frames are expected.
        limits: when to analyse fewer frames.
        sample_s: between two looks at the board.
        root: the folder that holds `sys` and `proc`.
    """

    store: Path
    host: str = LOOPBACK
    port: int | None = 9788
    frame_limit_s: float = 10.0
    limits: Limits = DEFAULT_LIMITS
    sample_s: float = 2.0
    root: Path = Path("/")


class Analysis:
    """A frame's way through analysis; say at its end what came of it."""

    def __init__(self) -> None:
        """Until told otherwise, nothing was measured."""
        self.outcome = Outcome.ABSTAINED

    def measured(self) -> None:
        """Say that the frame gave a measurement."""
        self.outcome = Outcome.MEASURED


class Service:
    """Keeps a live pipeline watched, within a `with` block.

        with service_of(settings, environment, metrics) as service:
            service.ready()
            for frame in source.frames():
                if service.admit():
                    with service.analysing(frame.arrived_s) as analysis:
                        ...

    `pulse`, `metrics` and `governor` may be used directly.

    Args:
        settings: what a clinic may set.
        metrics: where to count.
        notifier: systemd.
        watchdog_limit_s: systemd's WatchdogSec; None without one.
        why_idle: asked at every look, from another thread; see `Watchdog`.
        clock: monotonic seconds, the clock that frames are stamped with.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        metrics: Metrics,
        notifier: Notifier,
        watchdog_limit_s: float | None = None,
        why_idle: Callable[[], Idle | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the port; start nothing yet.

        Raises:
            EnvironmentLacksError: the port is taken.
        """
        self.pulse = Pulse(clock)
        self.metrics = metrics
        self.governor = Governor(settings.limits)
        self._settings = settings
        self._notifier = notifier
        self._clock = clock
        self._started_s = clock()
        self._throttling = Throttling()
        self._stopping = False
        self._ended = threading.Event()
        self._watchdog = Watchdog(
            self.pulse,
            notifier,
            settings.frame_limit_s,
            period_s(watchdog_limit_s),
            None if why_idle is None else lambda: Idle.STOPPING if self._stopping else why_idle(),
            self._looked,
        )
        self._sampler = threading.Thread(target=self._sample_on, name="telemetry", daemon=True)
        self._server = (
            None
            if settings.port is None
            else HealthServer(self.health, metrics.exposition, settings.host, settings.port)
        )

    @property
    def port(self) -> int | None:
        """The port of /health and /metrics; None where they are not served."""
        return None if self._server is None else self._server.port

    def __enter__(self) -> Self:
        """Start the threads."""
        self._watchdog.start()
        self._sampler.start()
        if self._server is not None:
            self._server.start()
        log_event(_LOG, logging.INFO, Event.STARTED, {} if self.port is None else {Field.PORT: self.port})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the threads; none of them can hold this up for long."""
        self.stopping()
        self._ended.set()
        if self._server is not None:
            self._server.stop()
        self._watchdog.stop()
        self._sampler.join(_JOIN_S)
        log_event(_LOG, logging.INFO, Event.STOPPED)

    def ready(self) -> None:
        """Say that the start is done; from here on systemd's watchdog counts."""
        self._notifier.ready("Ready.")
        log_event(_LOG, logging.INFO, Event.READY)

    def stopping(self) -> None:
        """Say that the end has begun, while what is left is drained and saved."""
        if not self._stopping:
            self._stopping = True
            self.pulse.idle(Idle.STOPPING)
            self._notifier.stopping()
            log_event(_LOG, logging.INFO, Event.STOPPING)

    def admit(self) -> bool:
        """Say whether to analyse a frame that was delivered; one that is not is counted as dropped."""
        admitted = self.governor.admit()
        if not admitted:
            self.metrics.dropped(Drop.RATE)
        return admitted

    @contextlib.contextmanager
    def analysing(self, arrived_s: float) -> Iterator[Analysis]:
        """Hold the analysis of a frame: at its end it is counted, timed and credited to the pulse.

        Args:
            arrived_s: when the frame arrived, by the service's clock.
        """
        analysis = Analysis()
        try:
            with self.pulse.frame():
                yield analysis
        except Exception:
            self.metrics.dropped(Drop.FAILED)
            raise
        latency_s = self._clock() - arrived_s
        self.metrics.analysed(latency_s, analysis.outcome)
        self.governor.observe(latency_s)

    def health(self) -> Health:
        """Judge the service as /health does."""
        liveness = self._liveness()
        body: Mapping[str, str | float | bool | None] = {
            "alive": liveness.alive,
            "reason": liveness.reason,
            "idle": None if liveness.idle is None else liveness.idle.value,
            "quiet_s": None if liveness.quiet_s is None else round(liveness.quiet_s, 3),
            "analysed_every_nth": self.governor.every_nth,
            "uptime_s": round(self._clock() - self._started_s, 3),
        }
        return Health(liveness.alive, body)

    def sample(self) -> None:
        """Look at the board and the store once, and decide on the rate."""
        telemetry = read_telemetry(self._settings.root)
        throttled = self._throttling.seen(telemetry)
        self.metrics.board(telemetry, throttled=throttled)
        self.metrics.store(_free_bytes(self._settings.store))
        room_c = headroom_c(telemetry)
        change = self.governor.consider(self._clock(), room_c, throttled=throttled)
        if change is not None:
            self.metrics.rate(change.every_nth)
            self._notifier.status(change.reason)
            fields = {Field.EVERY_NTH: change.every_nth} | ({} if room_c is None else {Field.HEADROOM_C: room_c})
            log_event(_LOG, logging.WARNING, Event.RATE_CHANGED, fields)

    def _liveness(self) -> Liveness:
        liveness = self.pulse.alive(self._settings.frame_limit_s)
        if liveness.alive and not self._watchdog.running():
            return Liveness(alive=False, reason="The watchdog's thread has ended.", idle=None, quiet_s=liveness.quiet_s)
        return liveness

    def _looked(self, verdict: Verdict) -> None:
        self.metrics.looked(alive=verdict.liveness.alive, uptime_s=self._clock() - self._started_s)

    def _sample_on(self) -> None:
        """Sample until the end; a board that cannot be read is no reason to stop measuring."""
        while True:
            try:
                self.sample()
            except Exception:  # noqa: BLE001 - a driver's file may do anything, and the thread must go on
                log_event(_LOG, logging.ERROR, Event.TELEMETRY_FAILED)
            if self._ended.wait(self._settings.sample_s):
                return


def _free_bytes(store: Path) -> int:
    """Return the free space; none where the folder is gone, since nothing can be written there."""
    try:
        return shutil.disk_usage(store).free
    except OSError:
        return 0


def service_of(
    settings: ServiceSettings,
    metrics: Metrics,
    environment: Mapping[str, str] | None = None,
    why_idle: Callable[[], Idle | None] | None = None,
) -> Service:
    """Put a service together for the environment that systemd, or a terminal, gives.

    Args:
        settings: what a clinic may set.
        metrics: where to count.
        environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; None for this process's.
        why_idle: what the source waits for, asked from another thread; see `Watchdog`.

    Raises:
        EnvironmentLacksError: the environment makes no sense, or the port is taken.
    """
    given = os.environ if environment is None else environment
    return Service(settings, metrics, notifier_from(given), watchdog_s(given, os.getpid()), why_idle)
