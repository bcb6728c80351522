"""A live source: frames as they happen, from a capture child that is watched, killed and started anew."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from edgefetal_devices.errors import EnvironmentLacksError, ScaleError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NOT_GIVEN
from edgefetal_runtime.sources.live.address import Address, DrillAddress, SimulatedAddress, parse_address
from edgefetal_runtime.sources.live.drill import DrillCamera
from edgefetal_runtime.sources.live.process import CaptureLink, CaptureProcess
from edgefetal_runtime.sources.live.ring import Board
from edgefetal_runtime.sources.live.status import (
    DEFAULT_TIMING,
    Dropped,
    LiveState,
    LiveStatus,
    LiveTiming,
    judge,
)
from edgefetal_runtime.sources.scale_wish import NO_WISH, ScaleWish, WishedSource
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt


class Clock(Protocol):
    """What tells the time and lets it pass; tests put their own here."""

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC, which the capture child stamps frames with, in seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Let the time pass."""


@dataclass(frozen=True)
class _Past:
    """What came of the capture children that are gone.

    Args:
        board: their counts, added up; the format of the last.
        unread: frames of theirs that were overwritten before they were asked for.
        numbers: how many frames they are known to have counted, dropped ones too.
    """

    board: Board = field(default_factory=Board)
    unread: int = 0
    numbers: int = 0


@dataclass
class _Session:
    """One capture child and what was taken from it.

    Args:
        link: the child.
        started_s: when it was started.
        taken: its count of whole frames when one was last delivered.
        unread: frames of it that were overwritten before they were asked for.
        first: arrival and device time of the first frame that was delivered from it.
        epoch: its count of interruptions at the last frame that was delivered.
    """

    link: CaptureLink
    started_s: float
    taken: int = 0
    unread: int = 0
    first: tuple[float, float] | None = None
    epoch: int = 0


class LiveCapture:
    """The frames of a live source, without a scale. `open_live` gives them one.

    `frames` may be asked for once at a time. All waiting is done there, in the thread of whoever asks; `status` may be
    read from any thread.

    Args:
        address: what to capture.
        timing: how long to wait for what.
        clock: CLOCK_MONOTONIC and its sleep; the time of day is never looked at.
        start: starts a capture child.
    """

    def __init__(
        self,
        address: Address,
        timing: LiveTiming = DEFAULT_TIMING,
        clock: Clock = time,
        start: Callable[[Address], CaptureLink] = CaptureProcess,
    ) -> None:
        """Start nothing yet."""
        self._address = address
        self._timing = timing
        self._clock = clock
        self._start = start
        # Guards what `status` reads from another thread; `stop` takes no lock, because a signal handler may call it.
        self._lock = threading.Lock()
        self._stopped = False
        self._session: _Session | None = None
        self._past = _Past()
        self._lost = ""
        self._ended = ""
        self._delivered = 0
        self._reopened = 0
        self._segment = 0
        self._began_s: float | None = None
        self._last_time_s = 0.0

    @property
    def kind(self) -> str:
        """Return what it is: `v4l2`, `rtsp`, `simulated` or `drill`."""
        return self._address.kind

    @property
    def name(self) -> str:
        """Return what people may see of its address."""
        return self._address.name

    @property
    def frame_count(self) -> None:
        """Return None: nobody knows how long it will run."""
        return

    @property
    def status(self) -> LiveStatus:
        """Return what the source is doing now."""
        with self._lock:
            session = self._session
            board = session.link.board() if session else Board()
            state, reason = self._shown(session, board)
            total = _added(self._past.board, board)
            unread = self._past.unread
            if session:
                # The newest one waits to be asked for, and is neither delivered nor dropped.
                unread += session.unread + max(board.captured - session.taken - 1, 0)
            return LiveStatus(
                state=state,
                reason=reason,
                format=total.format,
                received=total.captured,
                delivered=self._delivered,
                dropped=Dropped(total.missed, total.torn, unread),
                format_changes=total.format_changes,
                reopened=self._reopened,
                segment=self._segment,
                last_frame_s=total.newest.arrived_s if total.captured else None,
                fps=board.fps if state in {LiveState.LIVE, LiveState.FROZEN_BY_MACHINE} else 0.0,
            )

    def stop(self) -> None:
        """End the frames; from any thread and from a signal handler. It is heard within `LiveTiming.tick_s`."""
        self._stopped = True

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame whenever there is one that was not delivered, for ever.

        A source that is lost is opened again and again, until `stop` or until a file that is played has ended. Between
        two frames of one `segment` nothing was interrupted, though frames may be missing: `Frame.index` counts them.

        Raises:
            EnvironmentLacksError: no capture child can be started at all.
        """
        failures = 0
        self._ended = ""
        try:
            while not self._stopped:
                session = self._open()
                if session:
                    yield from self._frames_of(session)
                    failures = 0 if self._close() >= self._timing.settled_s else failures
                if self._ended:
                    return
                failures += 1
                self._pause(self._timing.backoff_s(failures))
        finally:
            self._close()
            self._ended = self._ended or f"{self._address.name} was stopped."

    def _open(self) -> _Session | None:
        """Start a capture child; the first must start, because a machine that cannot should say so at once."""
        try:
            link = self._start(self._address)
        except EnvironmentLacksError as error:
            if not self._lost and not self._delivered:
                raise
            self._lost = str(error)
            return None
        session = _Session(link, self._clock.monotonic())
        with self._lock:
            self._session = session
        return session

    def _frames_of(self, session: _Session) -> Iterator[Frame]:
        """Yield the frames of one child until it ends or is lost."""
        lives = True
        while not self._stopped:
            board, pixels = session.link.fetch(session.taken)
            if pixels is not None:
                yield self._frame(session, board, pixels)
                continue
            state, reason = self._judged(session, board)
            if state is LiveState.ENDED:
                self._ended = reason
                return
            if state is LiveState.LOST:
                self._lost = reason
                return
            # A child that died was looked at once more, so that its last frame is not missed.
            if not lives:
                self._lost = f"The capture of {self._address.name} died."
                return
            lives = session.link.wait(self._timing.tick_s)

    def _frame(self, session: _Session, board: Board, pixels: npt.NDArray[np.uint8]) -> Frame:
        """Count a frame as delivered, and place it in time."""
        new = board.newest
        with self._lock:
            if session.first is None:
                session.first = (new.arrived_s, new.device_s)
                # A new child after an earlier frame.
                interrupted = self._delivered > 0
                self._reopened += interrupted
            else:
                interrupted = new.epoch != session.epoch
            self._segment += interrupted
            session.epoch = new.epoch
            session.unread += board.captured - session.taken - 1
            session.taken = board.captured
            self._delivered += 1
            self._lost = ""
            arrived_s, device_s = session.first
            self._began_s = arrived_s if self._began_s is None else self._began_s
            # Within a child by the device's clock, which does not jitter; between children by our own.
            time_s = arrived_s - self._began_s + new.device_s - device_s
            self._last_time_s = max(self._last_time_s, time_s)
            return Frame(
                pixels,
                sweep=self._address.name,
                index=self._past.numbers + new.number,
                timestamp_s=self._last_time_s,
                scale=NOT_GIVEN,
                arrived_s=new.arrived_s,
                segment=self._segment,
            )

    def _close(self) -> float:
        """Kill the child, add up what came of it, and return for how many seconds it delivered frames."""
        session = self._session
        if session is None:
            return 0.0
        board = session.link.close()
        with self._lock:
            past = self._past
            self._past = _Past(
                _added(past.board, board),
                past.unread + session.unread + board.captured - session.taken,
                past.numbers + (board.newest.number + 1 if board.captured else 0),
            )
            self._session = None
        return board.newest.arrived_s - session.first[0] if session.first else 0.0

    def _judged(self, session: _Session, board: Board) -> tuple[LiveState, str]:
        now_s = self._clock.monotonic()
        return judge(board, self._address.name, started_s=session.started_s, now_s=now_s, timing=self._timing)

    def _shown(self, session: _Session | None, board: Board) -> tuple[LiveState, str]:
        """Return the state as people should see it: a source that is being tried again is still lost."""
        if self._ended:
            return LiveState.ENDED, self._ended
        state, reason = self._judged(session, board) if session else (LiveState.OPENING, "Nothing was asked for yet.")
        if state is LiveState.OPENING and self._lost:
            return LiveState.LOST, f"{self._lost} It is tried again."
        return state, reason

    def _pause(self, seconds: float) -> None:
        until_s = self._clock.monotonic() + seconds
        while not self._stopped and (left_s := until_s - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left_s, self._timing.tick_s))


def _added(past: Board, board: Board) -> Board:
    """Add a child's counts to those before it; what is not a count is the later one's."""
    changed = past.format and board.format and past.format.size_px != board.format.size_px
    return replace(
        board,
        captured=past.captured + board.captured,
        missed=past.missed + board.missed,
        torn=past.torn + board.torn,
        format_changes=past.format_changes + board.format_changes + bool(changed),
        format=board.format or past.format,
        newest=board.newest if board.captured else past.newest,
    )


@dataclass(frozen=True)
class LiveSource:
    """A live source whose frames have the scale that comes of a wish and of the rulers on them.

    Args:
        capture: where the frames come from.
        wish: what the user says of the pixel size.
    """

    capture: LiveCapture
    wish: ScaleWish = NO_WISH

    @property
    def kind(self) -> str:
        """Return what it is: `v4l2`, `rtsp`, `simulated` or `drill`."""
        return self.capture.kind

    @property
    def name(self) -> str:
        """Return what people may see of its address."""
        return self.capture.name

    @property
    def frame_count(self) -> None:
        """Return None: nobody knows how long it will run."""
        return

    @property
    def status(self) -> LiveStatus:
        """Return what the source is doing now; from any thread."""
        return self.capture.status

    def frames(self) -> Iterator[Frame]:
        """Yield frames as `LiveCapture.frames` does, with their scales.

        Raises:
            EnvironmentLacksError: no capture child can be started at all.
        """
        return WishedSource(self.capture, self.wish).frames()

    def stop(self) -> None:
        """End the frames; from any thread and from a signal handler."""
        self.capture.stop()


def open_live(address: str, wish: ScaleWish = NO_WISH, timing: LiveTiming = DEFAULT_TIMING) -> LiveSource:
    """Make a live source; nothing is opened before its frames are asked for.

    Args:
        address: `v4l2:/dev/video0`, `rtsp://HOST/PATH`, `simulated:FILE` or `drill:STEP,...`; see `parse_address`.
        wish: what the user says of the pixel size.
        timing: how long to wait for what.

    Raises:
        SourceError: the address is none, or the file to be played cannot be opened.
        ScaleError: the wish is a table, which names files.
    """
    parsed = parse_address(address)
    if wish.table is not None:
        message = "--scale-csv names pictures; give a live source its pixel size with --scale-profile or --mm-per-px."
        raise ScaleError(message)
    if isinstance(parsed, SimulatedAddress):
        # A device may be plugged in later; a file that is not there never comes.
        open_source(parsed.path)
    if isinstance(parsed, DrillAddress):
        DrillCamera(parsed)
    return LiveSource(LiveCapture(parsed, timing), wish)
