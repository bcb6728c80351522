"""A test picture with faults on cue, to rehearse what a clinic sees when a cable comes loose.

    drill:frames=90,no-signal=2,frames=90,unplug

| step | what happens |
|---|---|
| `fps=30` | the rate from here on; 0 is as fast as it goes |
| `size=744x562` | another picture size: at the start, or as a change of format |
| `frames=N` | N frames |
| `torn=N` | N frames that the device flags |
| `gap=N` | N numbers that the device skips |
| `freeze=N` | N times the same frame |
| `stall=S` | nothing for S seconds |
| `no-signal=S` | the signal is gone for S seconds |
| `unplug` | the device is gone; it is there again at once, and the drill begins anew |
| `hang` | the driver blocks for ever and holds the interpreter |
| `die=SIGNAL` | the process ends by a signal, given by its number |

`hang-open`, in the first place, hangs while it is opened. The drill ends with its last step. Every frame carries its
number and a checksum in its first 8 pixels.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import time
import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.sources.live.address import size_of
from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat, Torn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_runtime.sources.live.address import DrillAddress

_MARK_BYTES = 4
_DEFAULT_SIZE_PX = (744, 562)
_DEFAULT_FPS = 30.0
_COUNTED = ("frames", "torn", "gap", "freeze", "die")
_TIMED = ("fps", "stall", "no-signal")
_WHOLE = re.compile(r"[0-9]{1,6}")
_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?")
_BARE = ("unplug", "hang", "hang-open")


def test_picture(sequence: int, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw a frame, shape (H, W), uint8, that carries its number and a checksum in its first 8 pixels."""
    width_px, height_px = size_px
    row = np.arange(width_px, dtype=np.uint8) + np.uint8(sequence % 256)
    pixels = np.tile(row, (height_px, 1))
    mark = np.frombuffer((sequence % 2**32).to_bytes(_MARK_BYTES, "little"), np.uint8)
    flat = pixels.reshape(-1)
    flat[:_MARK_BYTES] = mark
    flat[_MARK_BYTES : 2 * _MARK_BYTES] = 0
    checksum = zlib.crc32(pixels.data)
    flat[_MARK_BYTES : 2 * _MARK_BYTES] = np.frombuffer(checksum.to_bytes(_MARK_BYTES, "little"), np.uint8)
    return pixels


def sequence_of(pixels: npt.NDArray[np.uint8]) -> int | None:
    """Read a test picture's number; None where it is not whole."""
    flat = pixels.reshape(-1).copy()
    stated = int.from_bytes(flat[_MARK_BYTES : 2 * _MARK_BYTES].tobytes(), "little")
    flat[_MARK_BYTES : 2 * _MARK_BYTES] = 0
    return int.from_bytes(flat[:_MARK_BYTES].tobytes(), "little") if zlib.crc32(flat.data) == stated else None


@dataclass(frozen=True)
class _Step:
    """One thing that happens.

    Args:
        what: its name.
        amount: frames, seconds, a rate or a signal.
        size_px: width and height, of a `size`.
    """

    what: str
    amount: float = 0.0
    size_px: tuple[int, int] = (0, 0)


def _step(what: str, much: str) -> _Step:
    """Read a step.

    Raises:
        SourceError: there is none of that name, or not of that amount.
    """
    size_px = size_of(much) if what == "size" else None
    if size_px:
        return _Step(what, size_px=size_px)
    if what in _BARE and not much:
        return _Step(what)
    form = _WHOLE if what in _COUNTED else _DECIMAL if what in _TIMED else None
    if form and form.fullmatch(much):
        return _Step(what, float(much))
    message = f"A drill has no step {what[:20]!r} of {much[:20]!r}; docs/live.md has them all."
    raise SourceError(message)


class DrillCamera:
    """Plays the steps of a drill.

    Args:
        address: the steps.
        clock: monotonic seconds.
        sleep: passes the time, given in seconds.

    Raises:
        SourceError: a step is none.
    """

    def __init__(
        self,
        address: DrillAddress,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Check the steps."""
        self._clock = clock
        self._sleep = sleep
        self._steps = deque(_step(what, much) for what, much in address.steps)
        self._size_px = _DEFAULT_SIZE_PX
        self._fps = _DEFAULT_FPS
        self._sequence = -1
        self._shown = 0
        self._due_s = 0.0
        self._signal_from_s = -math.inf

    def open(self) -> PictureFormat | Break:
        """Open it, if there is a signal; see `Camera.open`."""
        if self._clock() < self._signal_from_s:
            return Break.NO_SIGNAL
        while self._steps and self._steps[0].what in {"size", "fps", "hang-open"}:
            step = self._steps.popleft()
            if step.what == "hang-open":
                _hang()
            elif step.what == "size":
                self._size_px = step.size_px
            else:
                self._fps = step.amount
        self._due_s = self._clock()
        return PictureFormat(*self._size_px, "TEST", self._fps or None)

    def read(self, timeout_s: float) -> Captured | Torn | Break | None:
        """Do what comes next; see `Camera.read`.

        Raises:
            SourceError: it is unplugged.
        """
        if not self._steps:
            return Break.ENDED
        step = self._steps[0]
        if step.what in {"frames", "torn", "freeze"}:
            return self._next(step, timeout_s)
        if step.what == "stall":
            self._stall(step, timeout_s)
            return None
        if step.what == "size":
            return Break.FORMAT_CHANGED
        self._steps.popleft()
        if step.what == "no-signal":
            self._signal_from_s = self._clock() + step.amount
            return Break.NO_SIGNAL
        self._happen(step)
        return None

    def close(self) -> None:
        """Nothing is held."""

    def _next(self, step: _Step, timeout_s: float) -> Captured | Torn | None:
        """Deliver a frame when it is due."""
        wait_s = self._due_s - self._clock()
        self._sleep(min(max(wait_s, 0.0), timeout_s))
        if wait_s > timeout_s:
            return None
        self._less(step, 1)
        self._due_s += 1 / self._fps if self._fps else 0.0
        self._sequence += 1
        if step.what == "torn":
            return Torn(self._sequence)
        self._shown = self._shown if step.what == "freeze" else self._sequence
        return Captured(test_picture(self._shown, self._size_px), self._sequence, self._clock())

    def _stall(self, step: _Step, timeout_s: float) -> None:
        passed_s = min(timeout_s, step.amount)
        self._sleep(passed_s)
        self._less(step, passed_s)
        self._due_s = self._clock()

    def _less(self, step: _Step, amount: float) -> None:
        self._steps.popleft()
        if step.amount > amount:
            self._steps.appendleft(replace(step, amount=step.amount - amount))

    def _happen(self, step: _Step) -> None:
        if step.what == "fps":
            self._fps = step.amount
        elif step.what == "gap":
            self._sequence += int(step.amount)
        elif step.what == "die":
            os.kill(os.getpid(), int(step.amount))
        elif step.what == "unplug":
            message = "The drill was unplugged; wait, it comes back by itself."
            raise SourceError(message)
        else:
            _hang()


def _hang() -> None:
    # The worst that a library can do: `pause` for ever without letting go of the interpreter.
    ctypes.PyDLL(None).pause()
