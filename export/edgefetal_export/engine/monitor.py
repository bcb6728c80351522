"""How far a build is, and stopping it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.tensorrt.api import TensorRT

_Result = TypeVar("_Result")


def make_monitor(tensorrt: TensorRT, progress: Progress, cancelled: threading.Event) -> Any:  # noqa: ANN401 - untyped
    """Make what TensorRT tells its progress to: a bar for the build, and one for each of its parts.

    Args:
        tensorrt: the module.
        progress: who wants to know.
        cancelled: once it is set the build ends at its next step.
    """

    class Monitor(tensorrt.module.IProgressMonitor):  # type: ignore[name-defined, misc]  # its base comes at run time
        def __init__(self) -> None:
            super().__init__()
            # What advances each bar, and how many of its steps are left.
            self._shown: dict[str, tuple[Callable[[], None], int]] = {}
            self._outer: set[str] = set()
            # TensorRT may call from several threads.
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                # Deeper parts are many and short.
                if parent_phase is None or parent_phase in self._outer:
                    self._shown[phase_name] = progress.step(f"TensorRT: {phase_name}", num_steps), num_steps
                if parent_phase is None:
                    self._outer.add(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002 - TensorRT's signature
            with self._lock:
                advance, left = self._shown.get(phase_name, (None, 0))
                if advance is not None and left > 0:
                    self._shown[phase_name] = advance, left - 1
                    advance()
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                advance, left = self._shown.pop(phase_name, (None, 0))
                if advance is not None and not cancelled.is_set():
                    # The last step of a part is not always told.
                    for _ in range(left):
                        advance()
                self._outer.discard(phase_name)

    return Monitor()


def run_cancellable(work: Callable[[threading.Event], _Result]) -> _Result:
    """Run work beside this thread, so that Ctrl-C is heard at once and the work can end in order.

    Args:
        work: is given an event, which is set when it is to end.
    """
    cancelled = threading.Event()
    with ThreadPoolExecutor(1, "engine") as pool:
        future = pool.submit(work, cancelled)
        try:
            return future.result()
        except KeyboardInterrupt:
            cancelled.set()
            raise
