"""Where sweeps begin and end in a live picture, found by contact and movement or commanded by the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgefetal_runtime.sweep.glance import Glance

# A probe on the skin lights a good part of the fan; one in the air leaves a bright rim.
_MIN_LIT = 0.10
_CONTACT_OF_BEST = 0.6
_BEGIN_S, _END_S = 0.3, 1.0
_STILL_S = 0.2
# A sweep takes some ten seconds. One that never ends is cut, so that what was seen is measured and memory is bounded.
MAX_SWEEP_S = 120.0


class SweepFinder:
    """Numbers the sweeps of a live picture.

    A sweep begins when the probe has touched for 0.3 s with a moving picture, and ends when it has not for 1 s, when
    the source was interrupted, or when the operator says so. What is commanded goes before what is found: it holds
    until the picture has agreed with it once.
    """

    def __init__(self, *, commanded: bool = False) -> None:
        """Start an examination.

        Args:
            commanded: sweeps begin and end by `command` alone.
        """
        self._commanded = commanded
        self._number = 0
        self._open = False
        self._asked: bool | None = None
        self._overruled = False
        self._segment: int | None = None
        self._since_s: float | None = None
        self._began_s = 0.0
        self._moved_s: float | None = None
        self._best_lit = 0.0
        self._interruption: str | None = None
        self._last: Glance | None = None

    @property
    def number(self) -> int:
        """Return how many sweeps have begun."""
        return self._number

    @property
    def interruption(self) -> str | None:
        """Return what broke the sweep that ended last, or None where it ended by itself."""
        return self._interruption

    def command(self) -> None:
        """Begin a sweep, or end the one that runs; safe to call from another thread."""
        self._asked = not self._open

    def place(self, seen: Glance, timestamp_s: float, segment: int) -> int | None:
        """Say to which sweep a frame belongs.

        Args:
            seen: the frame from afar.
            timestamp_s: its time in the source.
            segment: a number that rises with every interruption of the source.

        Returns:
            The number of the sweep, from 1, or None between sweeps.
        """
        if self._segment is not None and segment != self._segment:
            self._interruption = "the picture was interrupted" if self._open else None
            self._open, self._overruled = False, False
            self._since_s = self._last = self._moved_s = None
        self._segment = segment
        if self._open and timestamp_s - self._began_s > MAX_SWEEP_S:
            self._set(timestamp_s, open_=False)
        asked, self._asked = self._asked, None
        if asked is not None:
            self._set(timestamp_s, open_=asked)
            self._overruled = True
        elif not self._commanded:
            self._find(seen, timestamp_s)
        self._last = seen
        return self._number if self._open else None

    def _set(self, timestamp_s: float, *, open_: bool) -> None:
        if open_ and not self._open:
            self._number += 1
            self._began_s = timestamp_s
        self._interruption = None
        self._open, self._since_s = open_, None

    def _find(self, seen: Glance, timestamp_s: float) -> None:
        """Begin or end a sweep once contact and movement have changed for long enough."""
        self._best_lit = max(self._best_lit, seen.lit)
        touches = seen.lit >= max(_MIN_LIT, _CONTACT_OF_BEST * self._best_lit)
        # The machine's own freeze repeats a frame bit by bit; a still hand does not. A grabber may double frames.
        if self._last is not None and not np.array_equal(seen.small, self._last.small):
            self._moved_s = timestamp_s
        moves = self._moved_s is not None and timestamp_s - self._moved_s < _STILL_S
        if (touches and moves) == self._open:
            self._since_s, self._overruled = None, False
            return
        if self._overruled:
            return
        if self._since_s is None:
            # A picture that froze has been still for as long as it did not move.
            self._since_s = self._moved_s if touches and not moves and self._moved_s is not None else timestamp_s
        if timestamp_s - self._since_s >= (_END_S if self._open else _BEGIN_S):
            self._set(timestamp_s, open_=not self._open)
