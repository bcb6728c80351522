"""Frames from the capture child to its parent: memory that both map, and that neither can tear.

The memory is an anonymous file: it has no name that could be left behind, and goes with the last process that maps it.
It begins with two copies of the board, of which one byte says which is valid, and holds three slots for pictures. The
writer fills a slot that is neither the newest nor being read, then writes the copy of the board that is not valid, then
turns the byte. So a writer that is killed at any point leaves the newest whole frame and its board.

The writer and the reader keep apart by byte-range locks on the file. The kernel takes a lock from a process that dies,
and its locks order memory between processors, which counters alone would not on ARM.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.sources.live.camera import MAX_LIVE_PIXELS, PictureFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_SLOTS = 3
_PAGE = 4096
_BOARD_BYTES = 1024
_BOARDS = 64
_SLOTS_START = _PAGE
_BOARD_LOCK = 0
_SLOT_LOCK = 1
# A board is written in microseconds.
_LOCK_TRIES = 500
_LOCK_PAUSE_S = 0.0001
_TOTAL_BYTES = _SLOTS_START + _SLOTS * MAX_LIVE_PIXELS


class Stage(IntEnum):
    """How far the child has come."""

    OPENING = 0
    OPEN = 1
    NO_SIGNAL = 2
    FAILED = 3
    ENDED = 4


@dataclass(frozen=True)
class Newest:
    """The newest whole frame.

    Args:
        slot: where it lies.
        width_px: columns.
        height_px: rows.
        number: its running number since the child began, from 0, with those counted that the device lost.
        epoch: how often the picture had been interrupted before it.
        device_s: the device's time.
        arrived_s: CLOCK_MONOTONIC when it left the driver.
        same_since_s: `arrived_s` of the first of the identical frames that it is the last of.
    """

    slot: int = -1
    width_px: int = 0
    height_px: int = 0
    number: int = 0
    epoch: int = 0
    device_s: float = 0.0
    arrived_s: float = 0.0
    same_since_s: float = 0.0


@dataclass(frozen=True)
class Board:
    """What the child says of itself; times are CLOCK_MONOTONIC.

    Args:
        stage: how far it has come.
        captured: whole frames that left the driver.
        missed: frames that the device numbered and never gave.
        torn: frames that were flagged or came short.
        format_changes: how often the format changed.
        fps: whole frames per second of late; 0 where too few came.
        opened_s: when the device was last opened.
        beat_s: when the child was last seen at work.
        format: what the device delivers; None before it was opened.
        newest: the newest whole frame; it means something once `captured` is not 0.
        reason: why it is in this stage, with what to do; empty where nothing is wrong.
    """

    stage: Stage = Stage.OPENING
    captured: int = 0
    missed: int = 0
    torn: int = 0
    format_changes: int = 0
    fps: float = 0.0
    opened_s: float = 0.0
    beat_s: float = 0.0
    format: PictureFormat | None = None
    newest: Newest = Newest()
    reason: str = ""


_LAYOUT = struct.Struct("<BQQQIddd IId8s bIIQIddd H")
_REASON_BYTES = _BOARD_BYTES - _LAYOUT.size


def _pack(board: Board) -> bytes:
    form = board.format or PictureFormat(0, 0, "")
    new = board.newest
    reason = board.reason.encode()[:_REASON_BYTES]
    fixed = _LAYOUT.pack(
        *(board.stage, board.captured, board.missed, board.torn, board.format_changes),
        *(board.fps, board.opened_s, board.beat_s),
        *(form.width_px, form.height_px, form.fps or 0.0, form.pixels.encode()[:8]),
        *(new.slot, new.width_px, new.height_px, new.number, new.epoch),
        *(new.device_s, new.arrived_s, new.same_since_s),
        len(reason),
    )
    return fixed + reason


def _unpack(content: bytes) -> Board:
    stage, captured, missed, torn, changes, fps, opened_s, beat_s, *rest = _LAYOUT.unpack_from(content)
    width_px, height_px, announced_fps, pixels, *newest, reason_bytes = rest
    form = (
        PictureFormat(width_px, height_px, pixels.rstrip(b"\0").decode(), announced_fps or None) if width_px else None
    )
    reason = content[_LAYOUT.size : _LAYOUT.size + reason_bytes].decode(errors="ignore")
    stage = Stage(stage)
    return Board(stage, captured, missed, torn, changes, fps, opened_s, beat_s, form, Newest(*newest), reason)


def create_ring() -> int:
    """Make the memory, and return its file descriptor. It takes room only as pictures are written.

    Raises:
        EnvironmentLacksError: this is no Linux.
    """
    if not hasattr(os, "memfd_create"):
        message = "Live sources need Linux; use a recorded file here."
        raise EnvironmentLacksError(message)
    descriptor = os.memfd_create("edgefetal-frames", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _TOTAL_BYTES)
    return descriptor


def _slot_pixels(memory: mmap.mmap, slot: int, height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    start = _SLOTS_START + slot * MAX_LIVE_PIXELS
    return np.frombuffer(memory, np.uint8, height_px * width_px, start).reshape(height_px, width_px)


class RingWriter:
    """The child's side.

    Args:
        descriptor: the memory, from `create_ring`.
        copy: copies a picture into its slot; tests put one here that is killed halfway.
    """

    def __init__(
        self,
        descriptor: int,
        copy: Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], None] = np.copyto,
    ) -> None:
        """Map the memory."""
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _TOTAL_BYTES)
        self._copy = copy
        self._valid = 0
        self._newest = Newest()

    def shows_newest(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a picture is the newest one again, pixel by pixel."""
        new = self._newest
        if new.slot < 0 or pixels.shape != (new.height_px, new.width_px):
            return False
        return bool(np.array_equal(_slot_pixels(self._memory, new.slot, *pixels.shape), pixels))

    def post(self, board: Board) -> None:
        """Replace the board; the newest frame stays the one that was published."""
        content = _pack(replace(board, newest=self._newest))
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _BOARD_LOCK)
        try:
            other = 1 - self._valid
            start = _BOARDS + other * _BOARD_BYTES
            self._memory[start : start + len(content)] = content
            self._memory[0] = other
            self._valid = other
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _BOARD_LOCK)

    def publish(self, pixels: npt.NDArray[np.uint8], board: Board) -> None:
        """Put a picture into a free slot and make it the newest.

        Args:
            pixels: grey picture, shape (H, W), uint8, at most `MAX_LIVE_PIXELS`.
            board: the board with this frame as `newest`; its slot and size are filled in here.
        """
        height_px, width_px = pixels.shape
        slot = self._lock_free_slot()
        try:
            self._copy(_slot_pixels(self._memory, slot, height_px, width_px), pixels)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _SLOT_LOCK + slot)
        self._newest = replace(board.newest, slot=slot, width_px=width_px, height_px=height_px)
        self.post(board)

    def _lock_free_slot(self) -> int:
        """Lock a slot; of the two that are not the newest, one reader holds at most one."""
        for slot in range(_SLOTS):
            if slot == self._newest.slot:
                continue
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SLOT_LOCK + slot)
            except OSError:
                continue
            return slot
        message = "Two slots are being read at once; one process only may read a ring."
        raise RuntimeError(message)


class RingReader:
    """The parent's side; not safe for several threads at once, because the locks are the process's.

    Args:
        descriptor: the memory, from `create_ring`.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the memory."""
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _TOTAL_BYTES, prot=mmap.PROT_READ)
        self._last = Board()

    def _lock_board(self) -> bool:
        """Lock the board, unless a writer that was halted in the midst of it holds on to it."""
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _BOARD_LOCK)
            except OSError:  # noqa: PERF203 - it is the loop that is wanted
                time.sleep(_LOCK_PAUSE_S)
            else:
                return True
        return False

    def _read_board(self) -> Board:
        start = _BOARDS + self._memory[0] * _BOARD_BYTES
        self._last = _unpack(self._memory[start : start + _BOARD_BYTES])
        return self._last

    def board(self) -> Board:
        """Return the board as it is; as it last was, where the writer was halted while it wrote one."""
        if not self._lock_board():
            return self._last
        try:
            return self._read_board()
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _BOARD_LOCK)

    def fetch(self, after: int) -> tuple[Board, npt.NDArray[np.uint8] | None]:
        """Return the board, as `board` does, with a copy of its newest picture; None where it captured no more."""
        if not self._lock_board():
            return self._last, None
        try:
            board = self._read_board()
            if board.captured <= after:
                return board, None
            # Taken before the board is let go, so that the writer cannot come round to this slot in between.
            place = _SLOT_LOCK + board.newest.slot
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH, 1, place)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _BOARD_LOCK)
        try:
            new = board.newest
            return board, _slot_pixels(self._memory, new.slot, new.height_px, new.width_px).copy()
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
