"""Whether the pipeline lives: frames come out as results, or it says why there is nothing to do."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IDLE_LIMIT_S = 30.0


class Idle(Enum):
    """Why no frame is expected. A closed list, so that no text of a patient or file can be shown."""

    STARTING = "starting"
    NO_SOURCE = "waiting for the source"
    NO_SIGNAL = "waiting for a signal"
    NO_EXAM = "no examination is open"
    SAVING = "saving an examination"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Liveness:
    """Whether the pipeline lives, and why.

    Args:
        alive: whether it does.
        reason: one sentence, without any name of a patient or file.
        idle: what it waits for, where it is alive and idle.
        quiet_s: seconds since the last frame came out, or since frames were expected; None before the first.
    """

    alive: bool
    reason: str
    idle: Idle | None
    quiet_s: float | None


class Pulse:
    """What the stages say of themselves; any thread may call anything.

    A frame that went into analysis is owed a result: while one is owed for too long nothing else counts, so that a
    thread that watches the source cannot declare a hung analysis idle. Declaring the same state again never puts a
    frame's deadline off; declaring idle puts off the idle one only.

    Args:
        clock: monotonic seconds; never the time of day, which jumps when a clinic's computer finds a time server.
        idle_limit_s: for how long a declared idle holds; then it must be declared again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, idle_limit_s: float = _IDLE_LIMIT_S) -> None:
        """Begin in `Idle.STARTING`."""
        self._clock = clock
        self._idle_limit_s = idle_limit_s
        self._lock = threading.Lock()
        self._idle: Idle | None = Idle.STARTING
        self._declared_s = clock()
        self._progress_s: float | None = None
        self._owed = 0
        self._owed_since_s = 0.0

    def idle(self, reason: Idle) -> None:
        """Declare that no frame is expected; to be said again within `idle_limit_s`."""
        with self._lock:
            self._idle = reason
            self._declared_s = self._clock()

    def busy(self) -> None:
        """Declare that frames are expected from now on."""
        with self._lock:
            if self._idle is not None:
                self._idle = None
                self._progress_s = self._clock()

    def frame_begun(self) -> None:
        """A frame went into analysis."""
        with self._lock:
            if self._owed == 0:
                self._owed_since_s = self._clock()
            self._owed += 1

    def frame_done(self) -> None:
        """A frame came out, as a measurement or as a reason why there is none."""
        with self._lock:
            self._settle()
            self._progress_s = self._owed_since_s = self._clock()

    def frame_failed(self) -> None:
        """A frame was given up; this is no progress, so a stage that fails on every frame counts as dead."""
        with self._lock:
            self._settle()

    @contextlib.contextmanager
    def frame(self) -> Iterator[None]:
        """Hold a frame's analysis: done at the end, failed if an exception leaves it."""
        self.frame_begun()
        try:
            yield
        except BaseException:
            self.frame_failed()
            raise
        self.frame_done()

    def alive(self, limit_s: float) -> Liveness:
        """Judge the pipeline now.

        Args:
            limit_s: within which a frame must come out, while frames are expected or one is owed.
        """
        with self._lock:
            now_s = self._clock()
            self._not_ahead_of(now_s)
            quiet_s = None if self._progress_s is None else now_s - self._progress_s
            owed_s = now_s - self._owed_since_s if self._owed else 0.0
            if owed_s > limit_s:
                reason = f"A frame has been in analysis for {owed_s:.1f} s; the limit is {limit_s:g} s."
                return Liveness(alive=False, reason=reason, idle=None, quiet_s=quiet_s)
            if self._idle is not None:
                return self._judge_idle(self._idle, now_s - self._declared_s, quiet_s)
            if quiet_s is None or quiet_s > limit_s:
                reason = f"No frame came out for {quiet_s or 0:.1f} s; the limit is {limit_s:g} s."
                return Liveness(alive=False, reason=reason, idle=None, quiet_s=quiet_s)
            return Liveness(alive=True, reason="Frames flow.", idle=None, quiet_s=quiet_s)

    def _judge_idle(self, idle: Idle, declared_s: float, quiet_s: float | None) -> Liveness:
        if declared_s > self._idle_limit_s:
            reason = (
                f"Idle ({idle.value}) was last declared {declared_s:.1f} s ago; the limit is {self._idle_limit_s:g} s."
            )
            return Liveness(alive=False, reason=reason, idle=None, quiet_s=quiet_s)
        return Liveness(alive=True, reason=f"Idle: {idle.value}.", idle=idle, quiet_s=quiet_s)

    def _settle(self) -> None:
        self._owed = max(self._owed - 1, 0)

    def _not_ahead_of(self, now_s: float) -> None:
        """Bring back what lies ahead; else a clock that jumps back would hide a hang for as long as the jump."""
        self._declared_s = min(self._declared_s, now_s)
        self._owed_since_s = min(self._owed_since_s, now_s)
        if self._progress_s is not None:
            self._progress_s = min(self._progress_s, now_s)
