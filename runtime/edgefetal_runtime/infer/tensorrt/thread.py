"""A thread that does one thing after another for whoever asks: the one thread that ever touches the GPU.

An engine is opened in a program's first thread and run in a stage's, while the GPU's context and TensorRT's belong to
one thread. So the engine gets a thread of its own, and the others hand it their work.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Job(Generic[T]):
    """A step, and what came of it."""

    def __init__(self, step: Callable[[], T]) -> None:
        self._step: Callable[[], T] | None = step
        self._value: T | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()

    def do(self) -> None:
        assert self._step is not None  # noqa: S101 - it is done once
        try:
            self._value = self._step()
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            self._error = error
        # What the step holds belongs to the thread that does it.
        self._step = None
        self._done.set()

    def result(self, wait_s: float | None) -> T:
        if not self._done.wait(wait_s):
            raise TimeoutError
        # The error's traceback leads back to this object.
        error, self._error = self._error, None
        if error is not None:
            raise error
        return cast("T", self._value)


class OwnThread:
    """Does steps one at a time, in order, in a thread of its own.

    Attributes:
        kept: what outlives every step. As long as the thread was not ended nothing of it is freed, not even when the
            program ends: a GPU that was lost must not be touched by what frees its memory.
    """

    def __init__(self, name: str) -> None:
        """Start it; it does not keep a program from ending."""
        self.kept: Any = None
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def do(self, step: Callable[[], T], wait_s: float | None = None) -> T:
        """Have a step done, wait for it, and return what it returns or raise what it raises.

        Args:
            step: from any thread.
            wait_s: at most so long; None for ever.

        Raises:
            TimeoutError: it took longer, and may still be done.
        """
        job = _Job(step)
        self._jobs.put(job)
        return job.result(wait_s)

    def end(self) -> None:
        """End it behind what was asked for before, and wait; nothing may be asked for any more."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self.kept = None
                return
            job.do()
            del job
