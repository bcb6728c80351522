"""The best frames of a sweep, chosen while it streams by.

A plane that lasts beats a flash: a running median over five frames removes what lasts less than three, and what is left
falls into runs. The run with the best frame is chosen, and in it the five best frames; where more are nearly as good,
five of these that lie far apart. Best is the largest section, because a structure's true plane is where its
cross-section is largest, and the one in the middle of the five by size is measured: the largest alone would be the one
with the largest error. Where the network grades frames, best is the highest mean grade of a frame and its neighbours,
and the best of the five is measured unless its size strays from theirs. What is measured is one frame, whose outline
can be shown.
"""

from __future__ import annotations

import heapq
import statistics
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from edgefetal_runtime.sweep.crossing import too_few, why_not_crossed

WINDOW = 5
KEPT = 5
# The best frames of a run that are held, and the share of the best one's rank from which frames count as equals: among
# these, frames far apart share less of their error.
POOL = 16
_NEARLY = 0.98
# A graded frame whose outline differs from the middle one's by more is an outlier, however good its grade.
_MAX_STRAY = 0.05

T = TypeVar("T")


@dataclass(frozen=True)
class Sized(Generic[T]):
    """A frame's finding with the size of its outline.

    Args:
        index: position in the sweep.
        size: extent of the outline in any unit that is the same over the sweep; 0 where there is none.
        item: what was found, kept only for the frames that are chosen.
        grade: how good the frame is, 0 to 1, or None where nobody says; then the size decides.
    """

    index: int
    size: float
    item: T
    grade: float | None = None


@dataclass(frozen=True)
class Run:
    """Frames in a row in which a structure was outlined.

    Args:
        first: index of its first frame.
        last: of its last.
        best: its highest rank: size, or grade where there is one, smoothed.
    """

    first: int
    last: int
    best: float


@dataclass(frozen=True)
class Choice(Generic[T]):
    """What was chosen of a sweep, and why.

    Args:
        frames: from the smallest outline to the largest; empty where nothing lasted.
        measured: the one of them that is measured, or None.
        runs: every run of the sweep.
        chosen: the run that the frames are of, or None.
        graded: whether grades decided, and not sizes.
        seen: frames in which the structure was outlined.
        doubt: why the true plane need not be among the frames, or None.
    """

    frames: tuple[Sized[T], ...]
    measured: Sized[T] | None
    runs: tuple[Run, ...]
    chosen: Run | None
    graded: bool
    seen: int
    doubt: str | None


@dataclass
class _OpenRun(Generic[T]):
    """A run that may go on.

    Args:
        first: index of its first frame.
        last: index of its last frame so far.
        pool: its best frames as a heap, the worst first: rank, index downwards, frame.
    """

    first: int
    last: int = 0
    pool: list[tuple[float, int, Sized[T]]] = field(default_factory=list)

    def add(self, rank: float, frame: Sized[T]) -> None:
        """Take a frame; of frames alike the earlier ones stay."""
        self.last = frame.index
        entry = (rank, -frame.index, frame)
        if len(self.pool) < POOL:
            heapq.heappush(self.pool, entry)
        else:
            heapq.heappushpop(self.pool, entry)

    def best(self) -> float:
        """Return the highest rank."""
        return max(rank for rank, _, _ in self.pool)

    def chosen(self, count: int) -> list[tuple[float, Sized[T]]]:
        """Return the best frames with their ranks; where more are nearly as good as the best, such as lie far apart."""
        ranked = sorted(self.pool, reverse=True)
        near = [entry for entry in ranked if entry[0] >= _NEARLY * ranked[0][0]]
        if len(near) <= count:
            return [(rank, frame) for rank, _, frame in ranked[:count]]
        in_order = sorted(((rank, frame) for rank, _, frame in near), key=lambda entry: entry[1].index)
        return [in_order[round(place)] for place in np.linspace(0, len(in_order) - 1, count)]


class SweepSelector(Generic[T]):
    """Keeps the best frames of one sweep; all but a few numbers of each frame in constant memory."""

    def __init__(self, structure: str, window: int = WINDOW, kept: int = KEPT) -> None:
        """Start a sweep.

        Args:
            structure: its name, for the reasons.
            window: frames in the running median, odd.
            kept: how many frames are chosen, at most 16.
        """
        self._structure = structure
        self._half = window // 2
        self._kept = kept
        self._recent: deque[Sized[T]] = deque(maxlen=window)
        self._sizes = array("f")
        self._smoothed = array("f")
        self._graded = False
        self._open: _OpenRun[T] | None = None
        self._best: _OpenRun[T] | None = None
        self._runs: list[Run] = []

    def push(self, frame: Sized[T]) -> None:
        """Take the next frame; the frame half a window back can now be judged."""
        self._recent.append(frame)
        self._sizes.append(frame.size)
        self._graded = self._graded or frame.grade is not None
        if frame.index >= self._half:
            self._judge(len(self._recent) - 1 - self._half)

    def finish(self) -> Choice[T]:
        """End the sweep and choose."""
        for position in range(max(0, len(self._recent) - self._half), len(self._recent)):
            self._judge(position)
        self._close()
        chosen = [] if self._best is None else self._best.chosen(self._kept)
        frames = sorted((frame for _, frame in chosen), key=lambda kept: (kept.size, kept.index))
        return Choice(
            frames=tuple(frames),
            measured=_measured(chosen, frames, graded=self._graded),
            runs=tuple(self._runs),
            chosen=max(self._runs, key=lambda run: run.best, default=None),
            graded=self._graded,
            seen=sum(size > 0 for size in self._sizes),
            doubt=self._doubt(len(frames)) if frames else None,
        )

    def _doubt(self, chosen: int) -> str | None:
        """Ask whether the sweep crossed the plane, where sizes decide; of a still somebody else chose the plane."""
        if self._graded or len(self._sizes) == 1:
            return None
        # A structure that flickers may last over many frames and be outlined in two of them.
        return too_few(chosen, self._structure) or why_not_crossed(
            np.array(self._sizes, np.float64), np.array(self._smoothed, np.float64), self._structure
        )

    def _judge(self, position: int) -> None:
        """Rank the frame at a position of the recent ones by the medians over the frames around it."""
        around = list(self._recent)[max(0, position - self._half) : position + self._half + 1]
        # Beyond the ends of a sweep nothing is shown, or else two frames at its end would count as lasting.
        missing = 2 * self._half + 1 - len(around) if self._recent[-1].index >= self._half else 0
        smoothed = statistics.median_low([frame.size for frame in around] + [0.0] * missing)
        frame = self._recent[position]
        lasting = min(smoothed, frame.size) > 0
        self._smoothed.append(smoothed if lasting else 0.0)
        if smoothed <= 0:
            self._close()
        elif lasting:
            rank = smoothed
            if frame.grade is not None:
                place = position - max(0, position - self._half)
                rank = statistics.fmean(beside.grade or 0.0 for beside in around[max(0, place - 1) : place + 2])
            if self._open is None:
                self._open = _OpenRun(frame.index)
            self._open.add(rank, frame)

    def _close(self) -> None:
        """End the run, and hold it if it is the best so far; the earlier of two alike stays."""
        if self._open is None:
            return
        self._runs.append(Run(self._open.first, self._open.last, self._open.best()))
        if self._best is None or self._open.best() > self._best.best():
            self._best = self._open
        self._open = None


def _measured(chosen: list[tuple[float, Sized[T]]], frames: list[Sized[T]], *, graded: bool) -> Sized[T] | None:
    """Return the frame in the middle by size (the lower of two); of graded ones the best, unless its size strays."""
    if not frames:
        return None
    middle = frames[(len(frames) - 1) // 2]
    if not graded:
        return middle
    alike = [entry for entry in chosen if abs(entry[1].size - middle.size) <= _MAX_STRAY * middle.size]
    return max(alike, key=lambda entry: (entry[0], -entry[1].index))[1]
