"""What a live source says of itself, and how that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from edgefetal_runtime.sources.live.ring import Board, Stage

if TYPE_CHECKING:
    from edgefetal_runtime.sources.live.camera import PictureFormat

# A source that announces a low rate is given this many frames' time before it counts as stalled.
_STALL_FRAMES = 3.0
# One exact repeat is a screen that is drawn more slowly than it is captured.
_MIN_FREEZE_FRAMES = 3.0


class LiveState(Enum):
    """What a source is doing. Only `LIVE` is a picture of now."""

    OPENING = "opening"
    LIVE = "live"
    FROZEN_BY_MACHINE = "frozen by the machine"
    NO_SIGNAL = "no signal"
    LOST = "lost"
    ENDED = "ended"


@dataclass(frozen=True)
class Dropped:
    """Frames that were not delivered, by cause.

    Args:
        missed: numbered by the device and never given, because it or the child was too slow.
        torn: flagged by the device, cut short or damaged.
        unread: overwritten by a newer one before they were asked for.
    """

    missed: int = 0
    torn: int = 0
    unread: int = 0


@dataclass(frozen=True)
class LiveStatus:
    """A live source at one moment.

    Args:
        state: what it is doing.
        reason: why, in a sentence that says what to do; empty when live.
        format: what the device delivers; None before it was ever opened.
        received: whole frames that left the driver.
        delivered: frames that were handed on; `received` is `delivered + dropped.unread`, and one more while the newest
            waits to be asked for.
        dropped: frames that were not, by cause.
        format_changes: how often the picture's size changed.
        reopened: how often frames came again from a capture process that was started anew.
        segment: how often the picture was interrupted between delivered frames, as in `Frame.segment`.
        last_frame_s: CLOCK_MONOTONIC of the newest frame's arrival; None before the first.
        fps: frames per second of late; 0 where none come.
    """

    state: LiveState
    reason: str
    format: PictureFormat | None = None
    received: int = 0
    delivered: int = 0
    dropped: Dropped = Dropped()
    format_changes: int = 0
    reopened: int = 0
    segment: int = 0
    last_frame_s: float | None = None
    fps: float = 0.0


@dataclass(frozen=True)
class LiveTiming:
    """How long a live source waits, in seconds.

    Args:
        stall_s: without a frame, until the source is lost.
        open_s: for a device to open, and a stream to connect.
        freeze_s: of exact repeats, until the machine counts as frozen.
        backoff_first_s: before the first try to open a lost source again; each further one waits twice as long.
        backoff_last_s: the longest such wait.
        settled_s: of frames, until the next loss counts as the first.
        tick_s: the longest time for which nothing is looked at; within it, a `stop` is heard.
    """

    stall_s: float = 1.0
    open_s: float = 10.0
    freeze_s: float = 0.5
    backoff_first_s: float = 0.1
    backoff_last_s: float = 5.0
    settled_s: float = 2.0
    tick_s: float = 0.05

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many losses in a row, 1 or more."""
        # Beyond 30 doublings every wait is the longest, and the power would overflow.
        return min(self.backoff_first_s * 2.0 ** min(failures - 1, 30), self.backoff_last_s)


DEFAULT_TIMING = LiveTiming()


def judge(board: Board, name: str, *, started_s: float, now_s: float, timing: LiveTiming) -> tuple[LiveState, str]:
    """Judge a capture child that lives by what it delivers.

    Args:
        board: what it says of itself.
        name: what people call the source.
        started_s: CLOCK_MONOTONIC when it was started.
        now_s: CLOCK_MONOTONIC now.
        timing: how long to wait for what.

    Returns:
        The state, and why, with what to do.
    """
    if board.stage in {Stage.FAILED, Stage.ENDED}:
        ended = board.stage is Stage.ENDED
        return (LiveState.ENDED, f"{name} has ended.") if ended else (LiveState.LOST, board.reason)
    if board.stage is Stage.NO_SIGNAL:
        # It looks for the signal by opening the device.
        if now_s - board.beat_s > timing.open_s:
            return LiveState.LOST, f"{name} does not answer; unplug it and plug it in again."
        message = f"{name} gets no signal; switch the ultrasound machine on and check the cable between them."
        return LiveState.NO_SIGNAL, message
    if board.stage is Stage.OPENING or board.newest.arrived_s < board.opened_s:
        since_s = max(started_s, board.beat_s if board.stage is Stage.OPENING else board.opened_s)
        if now_s - since_s <= timing.open_s:
            return LiveState.OPENING, f"{name} is being opened; wait."
        message = f"{name} gave no picture within {timing.open_s:g} s; unplug it and plug it in again."
        return LiveState.LOST, message
    return _judge_frames(board, name, now_s, timing)


def _judge_frames(board: Board, name: str, now_s: float, timing: LiveTiming) -> tuple[LiveState, str]:
    """Judge an open device by its newest frame: by when it came, and only then by what it shows."""
    period_s = 1 / board.format.fps if board.format and board.format.fps else 0.0
    if now_s - board.newest.arrived_s > max(timing.stall_s, _STALL_FRAMES * period_s):
        return LiveState.LOST, f"{name} gives no more pictures; check its cable and power."
    same_s = board.newest.arrived_s - board.newest.same_since_s
    if same_s >= max(timing.freeze_s, _MIN_FREEZE_FRAMES * period_s):
        return (
            LiveState.FROZEN_BY_MACHINE,
            "The ultrasound machine shows a frozen picture; press FREEZE on it to go on.",
        )
    return LiveState.LIVE, ""
