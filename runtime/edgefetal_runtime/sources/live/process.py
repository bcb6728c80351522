"""The parent's hold on the capture child: start it, hear it, fetch its newest frame, kill it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Protocol

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.sources.live.ring import Board, RingReader, create_ring

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.sources.live.address import Address

# The child gets this process's own import path, because `python -m` would also import from the current folder.
_BOOT = (
    "import sys, json\n"
    "setup = json.loads(sys.stdin.buffer.raw.readline())\n"
    "sys.path[:] = setup.pop('path')\n"
    "from edgefetal_runtime.sources.live.child import main\n"
    "main(**setup)\n"
)
# A process that hangs in the kernel, in a driver's fault, cannot be reaped until the driver lets go.
_REAP_S = 2.0


class CaptureLink(Protocol):
    """What a live source asks of the process that captures for it."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for news at most this long, and say whether the child still lives."""

    def board(self) -> Board:
        """Return what the child says of itself."""

    def fetch(self, after: int) -> tuple[Board, npt.NDArray[np.uint8] | None]:
        """Return its board and newest picture; None where it captured no more than `after`."""

    def close(self) -> Board:
        """Kill it, free everything, and return the last that it said."""


class CaptureProcess:
    """A running capture child.

    Args:
        address: what it captures.

    Raises:
        EnvironmentLacksError: this is no Linux, or no process can be started.
    """

    def __init__(self, address: Address) -> None:
        """Start it."""
        self._lock = threading.Lock()
        self._last: Board | None = None
        try:
            with contextlib.ExitStack() as undo:
                self._ring = create_ring()
                undo.callback(os.close, self._ring)
                self._reader = RingReader(self._ring)
                undo.callback(self._reader.close)
                self._bell, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                undo.callback(os.close, self._bell)
                try:
                    self._process = _start(address, self._ring, bell)
                finally:
                    os.close(bell)
                undo.pop_all()
        except OSError as error:
            message = f"The capture process cannot be started ({error.strerror}); close other programs and try again."
            raise EnvironmentLacksError(message) from error

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def wait(self, timeout_s: float) -> bool:
        """Wait for news at most this long, and say whether the child still lives."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if not poll.poll(max(timeout_s, 0.0) * 1000):
            return True
        try:
            return bool(os.read(self._bell, 65536))
        except BlockingIOError:
            return True

    def board(self) -> Board:
        """Return what the child says of itself, or last said."""
        with self._lock:
            return self._last or self._reader.board()

    def fetch(self, after: int) -> tuple[Board, npt.NDArray[np.uint8] | None]:
        """Return its board and newest picture; None where it captured no more than `after`."""
        with self._lock:
            return self._reader.fetch(after)

    def close(self) -> Board:
        """Kill it, free everything, and return the last that it said."""
        self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        # One that hangs in the kernel is left to it, and gone when the driver lets go.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)
        with self._lock:
            self._last = self._reader.board()
            self._reader.close()
            os.close(self._ring)
            os.close(self._bell)
            return self._last


def _start(address: Address, ring: int, bell: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, with our own words
        [sys.executable, "-I", "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(ring, bell),
        # Ctrl-C is for the parent, which ends the child in its own time.
        start_new_session=True,
        # Linear algebra is not done here, and its threads take longer to start than the rest.
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    # By a pipe, because a camera's password would be seen among the arguments.
    setup = {"path": sys.path, "address": address.text, "ring": ring, "bell": bell, "parent": os.getpid()}
    stdin = process.stdin
    if stdin:
        # Where it is gone already, whoever waits for it will hear so.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(setup).encode() + b"\n")
            stdin.flush()
    return process
