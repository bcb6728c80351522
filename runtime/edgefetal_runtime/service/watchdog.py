"""The thread that feeds systemd's watchdog, and only while the pipeline lives."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.service.logs import Event, Field, log_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.service.notify import Notifier
    from edgefetal_runtime.service.pulse import Idle, Liveness, Pulse

_LOG = logging.getLogger(__name__)
# Feeds in one WatchdogSec. The manual recommends two; with four, one lost to a busy machine does no harm.
_FEEDS = 4.0
_MAX_PERIOD_S = 1.0
_JOIN_S = 5.0


def period_s(limit_s: float | None) -> float:
    """Return how often to look at the pipeline, for a watchdog of `limit_s` seconds, or None for no watchdog."""
    return _MAX_PERIOD_S if limit_s is None else min(limit_s / _FEEDS, _MAX_PERIOD_S)


@dataclass(frozen=True)
class Verdict:
    """What came of one look.

    Args:
        liveness: of the pipeline.
        fed: whether systemd was told, and took it.
    """

    liveness: Liveness
    fed: bool


class Watchdog:
    """Looks at the pipeline at regular times and feeds systemd while it lives.

    Nothing here is caught: whatever ends the thread ends the feeding, and systemd starts the service anew.

    Args:
        pulse: what the stages say of themselves.
        notifier: systemd.
        frame_limit_s: within which a frame must come out.
        every_s: between two looks.
        why_idle: asked at every look; a reason declares idle, None declares busy. Without it the pipeline declares both
            itself.
        on_look: told what came of every look.
    """

    def __init__(
        self,
        pulse: Pulse,
        notifier: Notifier,
        frame_limit_s: float,
        every_s: float,
        why_idle: Callable[[], Idle | None] | None = None,
        on_look: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        """Start nothing yet."""
        self._pulse = pulse
        self._notifier = notifier
        self._frame_limit_s = frame_limit_s
        self._every_s = every_s
        self._why_idle = why_idle
        self._on_look = on_look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._was_alive = True

    def look(self) -> Verdict:
        """Look once, and feed systemd if the pipeline lives."""
        if self._why_idle is not None:
            idle = self._why_idle()
            if idle is None:
                self._pulse.busy()
            else:
                self._pulse.idle(idle)
        liveness = self._pulse.alive(self._frame_limit_s)
        verdict = Verdict(liveness, fed=liveness.alive and self._notifier.watchdog())
        if liveness.alive is not self._was_alive:
            self._was_alive = liveness.alive
            self._tell(liveness)
        self._on_look(verdict)
        return verdict

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def running(self) -> bool:
        """Say whether the thread lives."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread; one that hangs is left behind, because it is a daemon."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while True:
            self.look()
            if self._ended.wait(self._every_s):
                return

    def _tell(self, liveness: Liveness) -> None:
        event = Event.PIPELINE_RECOVERED if liveness.alive else Event.PIPELINE_STALLED
        level = logging.INFO if liveness.alive else logging.ERROR
        fields = {} if liveness.quiet_s is None else {Field.QUIET_S: liveness.quiet_s}
        log_event(_LOG, level, event, fields)
        self._notifier.status(liveness.reason)
