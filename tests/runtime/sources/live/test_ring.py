"""The ring: what is read is whole, whatever the writer is killed in."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from edgefetal_runtime.sources.live.address import parse_address
from edgefetal_runtime.sources.live.camera import PictureFormat
from edgefetal_runtime.sources.live.drill import sequence_of, test_picture
from edgefetal_runtime.sources.live.process import CaptureProcess
from edgefetal_runtime.sources.live.ring import Board, RingReader, RingWriter, Stage, _slot_pixels, create_ring

draw = test_picture
draw.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test

# Publishes 5 frames whole; of the sixth it writes as many bytes as it is told, and is killed.
KILLED_IN_A_FRAME = """
import os, signal, sys
import numpy as np
from edgefetal_runtime.sources.live.drill import test_picture
from edgefetal_runtime.sources.live.ring import Board, Newest, RingWriter

ring, written = int(sys.argv[1]), int(sys.argv[2])

def copy(to, picture):
    count[0] += 1
    if count[0] <= 5:
        return np.copyto(to, picture)
    to.reshape(-1)[:written] = picture.reshape(-1)[:written]
    os.kill(os.getpid(), signal.SIGKILL)

count = [0]
writer = RingWriter(ring, copy)
for number in range(9):
    writer.publish(test_picture(number, (744, 562)), Board(captured=number + 1, newest=Newest(number=number)))
"""
# The same, killed when a new board is written and not yet valid.
KILLED_IN_A_BOARD = """
import mmap, os, signal, sys
from edgefetal_runtime.sources.live.drill import test_picture
from edgefetal_runtime.sources.live.ring import Board, Newest, RingWriter

class Memory(mmap.mmap):
    def __setitem__(self, place, value):
        if place == 0 and number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__setitem__(place, value)

ring = int(sys.argv[1])
writer = RingWriter(ring)
writer._memory = Memory(ring, os.fstat(ring).st_size)
for number in range(9):
    writer.publish(test_picture(number, (744, 562)), Board(captured=number + 1, newest=Newest(number=number)))
"""
MANY_FRAMES = KILLED_IN_A_FRAME.replace("<= 5", "<= 300").replace("range(9)", "range(300)")


@pytest.fixture
def ring() -> int:
    return create_ring()


@pytest.mark.parametrize("written", [0, 1, 744, 744 * 281, 744 * 562 - 1, 744 * 562])
def test_a_writer_killed_within_a_frame_leaves_the_one_before_whole(ring: int, written: int) -> None:
    reader = RingReader(ring)
    command = [sys.executable, "-c", KILLED_IN_A_FRAME, str(ring), str(written)]
    ended = subprocess.run(command, pass_fds=(ring,), check=False, timeout=30)
    assert ended.returncode == -9
    board, pixels = reader.fetch(0)
    assert pixels is not None
    assert (board.captured, board.newest.number, sequence_of(pixels)) == (5, 4, 4)
    # Nothing of it is still locked: a new writer finds its place.
    RingWriter(ring).publish(draw(7, (64, 48)), Board(captured=6))
    _, after = reader.fetch(5)
    assert after is not None
    assert sequence_of(after) == 7
    reader.close()
    os.close(ring)


HALTED_IN_A_BOARD = """
import fcntl, signal, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, 0)
print("locked", flush=True)
signal.pause()
"""


def test_a_writer_that_is_halted_in_a_board_does_not_halt_the_reader(ring: int) -> None:
    reader = RingReader(ring)
    RingWriter(ring).publish(draw(3, (64, 48)), Board(captured=1))
    assert reader.board().captured == 1
    command = [sys.executable, "-c", HALTED_IN_A_BOARD, str(ring)]
    with subprocess.Popen(command, pass_fds=(ring,), stdout=subprocess.PIPE) as halted:
        assert halted.stdout
        halted.stdout.readline()
        began_s = time.monotonic()
        assert reader.board().captured == 1
        assert reader.fetch(0)[1] is None
        assert time.monotonic() - began_s < 2.0
        halted.kill()
    assert reader.fetch(0)[1] is not None
    reader.close()
    os.close(ring)


def test_the_board_comes_back_as_it_was_posted(ring: int) -> None:
    reader, writer = RingReader(ring), RingWriter(ring)
    assert (reader.board().stage, reader.board().captured, reader.board().format) == (Stage.OPENING, 0, None)
    board = Board(
        stage=Stage.FAILED,
        captured=3,
        missed=2**40,
        torn=1,
        format_changes=4,
        fps=29.97,
        opened_s=1.5,
        beat_s=2.5,
        format=PictureFormat(744, 562, "YUYV", 30.0),
        reason="Der Stecker sitzt lose; drück ihn hinein.",
    )
    writer.post(board)
    assert reader.board() == board
    writer.post(Board(reason="é" * 5000))
    assert set(reader.board().reason) == {"é"}
    reader.close()
    os.close(ring)


def test_a_writer_killed_before_its_board_is_valid_leaves_the_one_before(ring: int) -> None:
    reader = RingReader(ring)
    command = [sys.executable, "-c", KILLED_IN_A_BOARD, str(ring)]
    assert subprocess.run(command, pass_fds=(ring,), check=False, timeout=30).returncode == -9
    board, pixels = reader.fetch(0)
    assert pixels is not None
    assert (board.captured, sequence_of(pixels)) == (5, 4)
    reader.close()
    os.close(ring)


def test_a_picture_being_read_is_not_written_over(ring: int) -> None:
    """While one slot is held, a writer in another process publishes 300 frames into the others."""
    reader = RingReader(ring)
    RingWriter(ring).publish(draw(77, (744, 562)), Board(captured=1))
    slot = reader.board().newest.slot
    fcntl.lockf(ring, fcntl.LOCK_SH, 1, 1 + slot)
    subprocess.run([sys.executable, "-c", MANY_FRAMES, str(ring), "0"], pass_fds=(ring,), check=True, timeout=30)
    assert sequence_of(_slot_pixels(reader._memory, slot, 562, 744)) == 77
    board, newest = reader.fetch(1)
    assert newest is not None
    assert (board.captured, sequence_of(newest)) == (300, 299)
    assert board.newest.slot != slot
    assert reader.fetch(300)[1] is None
    reader.close()
    os.close(ring)


def test_the_newest_picture_is_known_again_only_where_every_pixel_is_the_same(ring: int) -> None:
    writer = RingWriter(ring)
    picture = np.full((48, 64), 7, np.uint8)
    assert not writer.shows_newest(picture)
    writer.publish(picture, Board(captured=1))
    assert writer.shows_newest(picture)
    assert not writer.shows_newest(picture.T.copy())
    picture[47, 63] = 8
    assert not writer.shows_newest(picture)
    os.close(ring)


def _read_until_killed(frames: int, seed: int) -> int:
    """Read from a child at full speed and kill it at some moment; return how many frames were read, all whole."""
    process = CaptureProcess(parse_address("drill:size=744x562,fps=0,frames=999999"))
    rng = np.random.default_rng(seed)
    taken = count = 0
    last = -1
    for _ in range(frames):
        while process.wait(0.5):
            board, pixels = process.fetch(taken)
            if pixels is not None:
                break
        assert pixels is not None
        sequence = sequence_of(pixels)
        assert sequence is not None, "A torn frame was delivered."
        assert (sequence, board.newest.number) == (board.newest.number, board.captured - 1)
        assert sequence > last
        taken, last, count = board.captured, sequence, count + 1
    # Somewhere within the next frame, mostly.
    for _ in range(int(rng.integers(0, 20_000))):
        pass
    os.kill(process.pid, 9)
    while process.wait(0.5):
        pass
    board, pixels = process.fetch(taken)
    assert pixels is None or sequence_of(pixels) == board.newest.number
    process.close()
    return count + (pixels is not None)


def test_no_torn_frame_is_delivered_by_a_child_that_is_killed_at_any_moment() -> None:
    kills = 10
    frames = sum(_read_until_killed(60, seed) for seed in range(kills))
    assert frames >= kills * 60
    print(f"\n{frames} frames read at full speed, {kills} children killed: 0 torn frames")  # noqa: T201


@pytest.mark.slow
def test_no_torn_frame_is_delivered_by_hundreds_of_killed_children() -> None:
    kills = 300
    frames = sum(_read_until_killed(200, seed) for seed in range(kills))
    print(f"\n{frames} frames read at full speed, {kills} children killed: 0 torn frames")  # noqa: T201
    assert frames >= kills * 200
