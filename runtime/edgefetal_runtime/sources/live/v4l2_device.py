"""The few calls into the kernel that a V4L2 camera needs; tests put a device of their own in this place."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ctypes


class Device(Protocol):
    """A video device. Every call raises OSError with the kernel's number where it fails."""

    def open(self, path: str) -> None:
        """Open it, not to block."""

    def ioctl(self, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        """Call the driver, which fills the argument in."""

    def poll(self, timeout_s: float) -> int:
        """Wait for a frame, an event or an error; the bits of `select.poll`, 0 where the time is up."""

    def map(self, length: int, offset: int) -> int:
        """Map a buffer, and return a handle for `read` and `unmap_all`."""

    def read(self, handle: int, length: int) -> bytes:
        """Copy the first bytes of a mapped buffer."""

    def unmap_all(self) -> None:
        """Unmap every buffer."""

    def close(self) -> None:
        """Close it; more than once does no harm."""


class KernelDevice:
    """A video device of this machine."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._descriptor = -1
        self._maps: list[mmap.mmap] = []

    def open(self, path: str) -> None:
        """Open it, not to block: a blocking DQBUF may never return after the cable was pulled."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        """Call the driver, which fills the argument in."""
        fcntl.ioctl(self._descriptor, request, argument, True)  # noqa: FBT003 - positional only

    def poll(self, timeout_s: float) -> int:
        """Wait for a frame, an event or an error."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN | select.POLLPRI)
        ready = poll.poll(timeout_s * 1000)
        return ready[0][1] if ready else 0

    def map(self, length: int, offset: int) -> int:
        """Map a buffer for reading; drivers want it shared."""
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._maps.append(mmap.mmap(self._descriptor, length, mmap.MAP_SHARED, protection, offset=offset))
        return len(self._maps) - 1

    def read(self, handle: int, length: int) -> bytes:
        """Copy the first bytes of a mapped buffer."""
        return self._maps[handle][:length]

    def unmap_all(self) -> None:
        """Unmap every buffer."""
        while self._maps:
            self._maps.pop().close()

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
