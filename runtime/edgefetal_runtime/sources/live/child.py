"""The capture child: opens one camera and puts its frames into the ring until it is killed.

A driver, FFmpeg or a USB port may block for ever and take no signal but SIGKILL; so whatever touches a device lives in
a process of its own, which owns nothing that would have to be tidied up. It imports little, because it is started anew
after every loss.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from edgefetal_devices.errors import EdgeFetalError, SourceError
from edgefetal_runtime.sources.live.address import (
    Address,
    DrillAddress,
    RtspAddress,
    V4l2Address,
    parse_address,
)
from edgefetal_runtime.sources.live.camera import MAX_LIVE_PIXELS, Break, Captured, PictureFormat, Torn
from edgefetal_runtime.sources.live.ring import Board, Newest, RingWriter, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.sources.live.camera import Camera

_LIFELINE = 0
# How long a read may wait before the child shows that it is at work; a third of what the parent gives it.
_BEAT_S = 0.25
_FPS_FRAMES = 30
# A device that jumps further than this began to count anew.
_MAX_GAP = 100_000
# `fcntl` names it from Python 3.12 on; <asm-generic/fcntl.h>.
_F_SETSIG = 10


def camera_of(address: Address) -> Camera:
    """Make the camera of an address; each imports what it needs."""
    if isinstance(address, V4l2Address):
        from edgefetal_runtime.sources.live.v4l2 import V4l2Camera  # noqa: PLC0415 - the child must start fast

        return V4l2Camera(address)
    if isinstance(address, RtspAddress):
        from edgefetal_runtime.sources.live.rtsp import RtspCamera  # noqa: PLC0415 - likewise

        return RtspCamera(address)
    if isinstance(address, DrillAddress):
        from edgefetal_runtime.sources.live.drill import DrillCamera  # noqa: PLC0415 - likewise

        return DrillCamera(address)
    from edgefetal_runtime.sources.live.simulated import SimulatedCamera  # noqa: PLC0415 - likewise

    return SimulatedCamera(address)


class Recorder:
    """Keeps the board while frames and faults come in.

    Args:
        ring: where boards and pictures go.
        ring_bell: wakes the parent.
    """

    def __init__(self, ring: RingWriter, ring_bell: Callable[[], None]) -> None:
        """Begin with nothing captured."""
        self._ring = ring
        self._ring_bell = ring_bell
        self._board = Board(beat_s=time.monotonic())
        self._newest = Newest(number=-1)
        self._last_sequence: int | None = None
        self._skipped = 0
        self._epoch = 0
        self._arrivals: deque[float] = deque(maxlen=_FPS_FRAMES)

    def beat(self) -> None:
        """Show that the child is at work."""
        self._post(self._board)

    def opened(self, form: PictureFormat) -> None:
        """Note that the device was opened.

        Raises:
            SourceError: its pictures are larger than there is room for.
        """
        if form.width_px * form.height_px > MAX_LIVE_PIXELS:
            message = f"The pictures are {form.width_px} x {form.height_px}; set the device to 4096 x 2304 at most."
            raise SourceError(message)
        board, last = self._board, self._board.format
        if last and last.size_px != form.size_px:
            board = replace(board, format_changes=board.format_changes + 1)
        if board.captured:
            self._epoch += 1
        self._last_sequence = None
        self._arrivals.clear()
        self._post(replace(board, stage=Stage.OPEN, format=form, opened_s=time.monotonic(), fps=0.0, reason=""))

    def stopped(self, stage: Stage, reason: str = "") -> None:
        """Note that no frames come for now, or ever."""
        self._post(replace(self._board, stage=stage, fps=0.0, reason=reason))

    def torn(self, sequence: int | None) -> None:
        """Count a frame that is not to be shown."""
        missed = self._count(sequence)
        self._skipped += 1
        board = self._board
        self._post(replace(board, torn=board.torn + 1, missed=board.missed + missed))

    def frame(self, captured: Captured) -> None:
        """Publish a whole frame."""
        arrived_s = time.monotonic()
        missed = self._count(captured.sequence)
        self._arrivals.append(arrived_s)
        same = self._ring.shows_newest(captured.pixels)
        self._newest = Newest(
            number=self._newest.number + 1 + self._skipped,
            epoch=self._epoch,
            device_s=captured.device_s,
            arrived_s=arrived_s,
            same_since_s=self._newest.same_since_s if same else arrived_s,
        )
        self._skipped = 0
        board = self._board
        self._board = replace(
            board,
            stage=Stage.OPEN,
            captured=board.captured + 1,
            missed=board.missed + missed,
            fps=self._fps(),
            beat_s=arrived_s,
            newest=self._newest,
        )
        self._ring.publish(captured.pixels, self._board)
        self._ring_bell()

    def _count(self, sequence: int | None) -> int:
        """Return how many frames the device lost before this one."""
        missed = 0
        if sequence is not None:
            if self._last_sequence is not None and 0 < sequence - self._last_sequence <= _MAX_GAP:
                missed = sequence - self._last_sequence - 1
            self._last_sequence = sequence
        self._skipped += missed
        return missed

    def _fps(self) -> float:
        span_s = self._arrivals[-1] - self._arrivals[0]
        return (len(self._arrivals) - 1) / span_s if span_s > 0 else 0.0

    def _post(self, board: Board) -> None:
        news = board.stage != self._board.stage
        self._board = replace(board, beat_s=time.monotonic())
        self._ring.post(self._board)
        if news:
            self._ring_bell()


def capture(camera: Camera, recorder: Recorder, wait: Callable[[float], None]) -> None:
    """Put a camera's frames into the ring until it ends or is lost.

    Args:
        camera: a camera that is closed.
        recorder: keeps the board.
        wait: passes the time between two looks for a signal, given in seconds.
    """
    try:
        recorder.stopped(Stage.OPENING)
        while True:
            opened = camera.open()
            if isinstance(opened, PictureFormat):
                recorder.opened(opened)
                broken = _read(camera, recorder)
            else:
                broken = opened
            camera.close()
            if broken is Break.ENDED:
                recorder.stopped(Stage.ENDED)
                return
            if broken is Break.NO_SIGNAL:
                recorder.stopped(Stage.NO_SIGNAL)
                wait(_BEAT_S)
            else:
                recorder.stopped(Stage.OPENING)
    except EdgeFetalError as error:
        recorder.stopped(Stage.FAILED, str(error))


def _read(camera: Camera, recorder: Recorder) -> Break:
    while True:
        got = camera.read(_BEAT_S)
        if isinstance(got, Captured):
            recorder.frame(got)
        elif isinstance(got, Torn):
            recorder.torn(got.sequence)
        elif got is None:
            recorder.beat()
        else:
            return got


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent lets go of the lifeline, however it ends.

    The lifeline is standard input, a pipe whose other end only the parent holds. SIGKILL comes from the kernel, so it
    works while a library blocks and holds the interpreter. `PR_SET_PDEATHSIG` would not do: it goes by the thread that
    started the child.
    """
    fcntl.fcntl(_LIFELINE, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_LIFELINE, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(_LIFELINE, fcntl.F_SETFL, fcntl.fcntl(_LIFELINE, fcntl.F_GETFL) | os.O_ASYNC)
    # It may have gone before the kernel was told to watch.
    wait_for_parent(0.0)
    if os.getppid() != parent:
        os._exit(1)


def wait_for_parent(seconds: float) -> None:
    """Pass the time, and end at once with the parent."""
    if select.select([_LIFELINE], [], [], seconds)[0]:
        os._exit(1)


def main(address: str, ring: int, bell: int, parent: int) -> None:
    """Run the child.

    Args:
        address: what to open, as `parse_address` reads it.
        ring: descriptor of the ring's memory.
        bell: descriptor of the pipe that wakes the parent.
        parent: process id of the parent.
    """
    die_with_parent(parent)
    os.set_blocking(bell, False)

    def ring_bell() -> None:
        try:
            os.write(bell, b"\0")
        except BlockingIOError:
            # The parent has been busy for 65,536 frames; it is awake enough.
            pass
        except BrokenPipeError:
            os._exit(1)
        if os.getppid() != parent:
            os._exit(1)

    recorder = Recorder(RingWriter(ring), ring_bell)
    try:
        capture(camera_of(parse_address(address)), recorder, wait_for_parent)
    except Exception as error:  # noqa: BLE001 - a fault of ours must be told to the parent too, not to a closed stderr
        recorder.stopped(Stage.FAILED, f"The capture failed ({type(error).__name__}: {error}); report this.")
