"""A file played in real time, as the camera of a drill with real pictures."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.sources.live.address import SimulatedAddress

# Pictures of a folder have no times of their own, and a slower file than this would pass for a stalled one.
_DEFAULT_PERIOD_S = 1 / 30
_MAX_PERIOD_S = 0.5


class SimulatedCamera:
    """Plays any source that `open_source` takes; of its frames only the pixels, as a cable would carry them.

    Args:
        address: the file, its rate, and whether it begins again.
        clock: monotonic seconds.
        sleep: passes the time, given in seconds.
    """

    def __init__(
        self,
        address: SimulatedAddress,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open nothing yet."""
        self._address = address
        self._clock = clock
        self._sleep = sleep
        self._frames: Iterator[Frame] | None = None
        self._next: Frame | None = None
        self._sequence = 0
        self._played_s = 0.0
        self._due_s = 0.0

    def open(self) -> PictureFormat | Break:
        """Open the file, or go on in it after a change of its picture size; see `Camera.open`.

        Raises:
            SourceError: the file cannot be read.
            ScaleError: what it says of its pixel size is malformed.
        """
        if self._frames is None:
            self._frames = self._play()
            self._next = next(self._frames, None)
        if self._next is None:
            return Break.ENDED
        height_px, width_px = self._next.pixels.shape
        self._size_px = (width_px, height_px)
        self._due_s = self._clock()
        return PictureFormat(width_px, height_px, "GREY", self._address.fps)

    def read(self, timeout_s: float) -> Captured | Break | None:
        """Return the next frame when it is due; see `Camera.read`.

        Raises:
            SourceError: the file cannot be read on.
        """
        frame = self._next
        if frame is None or self._frames is None:
            return Break.ENDED
        if frame.pixels.shape != self._size_px[::-1]:
            return Break.FORMAT_CHANGED
        wait_s = self._due_s - self._clock()
        self._sleep(min(max(wait_s, 0.0), timeout_s))
        if wait_s > timeout_s:
            return None
        captured = Captured(frame.pixels, self._sequence, self._played_s)
        self._next = next(self._frames, None)
        period_s = self._period_s(frame, self._next)
        self._sequence += 1
        self._played_s += period_s
        # A file that decodes slower than it plays gets late, and does not try to make up for it.
        self._due_s = max(self._due_s + period_s, self._clock() - period_s)
        return captured

    def close(self) -> None:
        """Keep the place in the file, because only its picture size changed."""

    def _play(self) -> Iterator[Frame]:
        for _ in itertools.count() if self._address.loop else range(1):
            yield from open_source(self._address.path).frames()

    def _period_s(self, frame: Frame, following: Frame | None) -> float:
        if self._address.fps:
            return 1 / self._address.fps
        step_s = following.timestamp_s - frame.timestamp_s if following else 0.0
        return min(step_s, _MAX_PERIOD_S) if step_s > 0 else _DEFAULT_PERIOD_S
