"""The best frames of a sweep, chosen while it streams by.

A structure's true plane is where its cross-section is largest, and a true plane lasts. So each frame gets the size of
its outline, 0 where nothing was outlined; a running median over five frames removes what lasts less than three; the
five frames with the largest smoothed size are kept; and the one in the middle of these by size is reported, whose
outline can be shown. The largest alone would be the one with the largest error.
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

WINDOW = 5
KEPT = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Sized(Generic[T]):
    """A frame's finding with the size of its outline.

    Args:
        index: position in the sweep.
        size: extent of the outline in any unit that is the same over the sweep; 0 where there is none.
        item: what was found, kept only for the frames that are chosen.
    """

    index: int
    size: float
    item: T


class SweepSelector(Generic[T]):
    """Keeps the best frames of one sweep in constant memory."""

    def __init__(self, window: int = WINDOW, kept: int = KEPT) -> None:
        """Start a sweep.

        Args:
            window: frames in the running median, odd.
            kept: how many frames are kept.
        """
        self._half = window // 2
        self._kept = kept
        self._recent: deque[Sized[T]] = deque(maxlen=window)
        self._best: list[tuple[float, int, Sized[T]]] = []

    def push(self, frame: Sized[T]) -> None:
        """Take the next frame; the frame half a window back can now be judged."""
        self._recent.append(frame)
        if frame.index >= self._half:
            self._judge(len(self._recent) - 1 - self._half)

    def finish(self) -> list[Sized[T]]:
        """End the sweep; return the kept frames from the smallest outline to the largest."""
        for position in range(max(0, len(self._recent) - self._half), len(self._recent)):
            self._judge(position)
        return sorted((entry[2] for entry in self._best), key=lambda kept: (kept.size, kept.index))

    def _judge(self, position: int) -> None:
        """Rank the frame at a position of the recent ones by the median over the frames around it."""
        around = [frame.size for frame in self._recent][max(0, position - self._half) : position + self._half + 1]
        # Beyond the ends of a sweep nothing is shown, or else two frames at its end would count as lasting.
        if self._recent[-1].index >= self._half:
            around += [0.0] * (2 * self._half + 1 - len(around))
        smoothed = statistics.median_low(around)
        frame = self._recent[position]
        if min(smoothed, frame.size) <= 0:
            return
        # The index breaks ties, so that two frames are never compared themselves; the earlier one stays.
        entry = (smoothed, -frame.index, frame)
        if len(self._best) < self._kept:
            heapq.heappush(self._best, entry)
        else:
            heapq.heappushpop(self._best, entry)


def middle(frames: list[Sized[T]]) -> Sized[T] | None:
    """Return the frame in the middle by size (the lower of two), or None where none was kept."""
    return frames[(len(frames) - 1) // 2] if frames else None
