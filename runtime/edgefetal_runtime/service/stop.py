"""Ending on SIGTERM or SIGINT: the exam is drained and saved first, and a second signal cuts the draining short."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from typing_extensions import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Asked for once: drain and save. Asked for twice: end now, but let a write that has begun finish.

        with Stop(on_stop=source.stop) as stop:
            for frame in source.frames(): ...
            if not stop.urgent: ...            # what is left of the exam
            with stop.saving():
                write_exam(...)

    The second signal raises KeyboardInterrupt, once, in the main thread: at once, or at the end of `saving()`. Later
    signals do nothing. The handlers take no lock, since they run between any two steps of the main thread, which may
    hold it; so there is no `threading.Event` here.

    Args:
        on_stop: called once, from the handler or from `request`; it may take no lock.
    """

    def __init__(self, on_stop: Callable[[], None] = lambda: None) -> None:
        """Install nothing yet."""
        self._on_stop = on_stop
        # Taking the one item out of a list cannot be interrupted, so that two who ask at once are told apart.
        self._unasked = [True]
        self._requested = False
        self._urgent = False
        self._raised = False
        self._saving = 0
        self._previous: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object] | int] = {}
        self._read_end, self._write_end = -1, -1

    @property
    def requested(self) -> bool:
        """Whether to end, after what was begun is drained and saved."""
        return self._requested

    @property
    def urgent(self) -> bool:
        """Whether to leave out all that is not yet begun."""
        return self._urgent

    def request(self) -> None:
        """Ask for the end as the first signal does; from any thread."""
        try:
            self._unasked.pop()
        except IndexError:
            return
        self._requested = True
        # A byte in a pipe wakes whoever waits, and stays there for the next. Outside the block there is no pipe.
        with contextlib.suppress(OSError):
            os.write(self._write_end, b"s")
        self._on_stop()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end to be asked for; from any thread, within the `with` block.

        Returns:
            Whether it was.
        """
        select.select([self._read_end], [], [], 0.0 if self._requested else timeout_s)
        return self._requested

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Hold the second signal's KeyboardInterrupt back until the block ends; in the main thread."""
        self._saving += 1
        try:
            yield
        finally:
            self._saving -= 1
            self._raise_if_due()

    def __enter__(self) -> Self:
        """Take over both signals; in the main thread.

        Raises:
            ValueError: this is not the main thread.
        """
        self._read_end, self._write_end = os.pipe()
        for number in _SIGNALS:
            previous = signal.signal(number, self._handle)
            # None stands for a handler that was not set from Python and cannot be given back.
            self._previous[number] = signal.SIG_DFL if previous is None else previous
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back; from here on none raises."""
        self._raised = True
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()
        read_end, write_end = self._read_end, self._write_end
        self._read_end = self._write_end = -1
        os.close(write_end)
        os.close(read_end)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - how Python calls a handler
        if not self._requested:
            self.request()
            return
        self._urgent = True
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._urgent and not self._saving and not self._raised:
            self._raised = True
            raise KeyboardInterrupt
