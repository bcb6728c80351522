"""Faults put into running captures: real child processes, a drill in the place of the device."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.sources.live.address import parse_address
from edgefetal_runtime.sources.live.drill import sequence_of
from edgefetal_runtime.sources.live.live import LiveCapture
from edgefetal_runtime.sources.live.process import CaptureProcess
from edgefetal_runtime.sources.live.status import LiveState, LiveTiming

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.frame import Frame

SMALL = "size=64x48,fps=200"


def _pid(source: LiveCapture) -> int | None:
    session = source._session
    return session.link.pid if session and isinstance(session.link, CaptureProcess) else None


class Watched:
    """A source whose frames are taken in a thread, as the clinic's page does."""

    def __init__(self, drill: str, timing: LiveTiming) -> None:
        self.source = LiveCapture(parse_address(f"drill:{drill}"), timing)
        self.frames: list[Frame] = []
        self.states: Counter[LiveState] = Counter()
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        for frame in self.source.frames():
            self.frames.append(frame)

    def is_in(self, state: LiveState) -> bool:
        self.states[self.source.status.state] += 1
        return self.source.status.state is state

    def pid_other_than(self, pid: int | None) -> int | None:
        now = _pid(self.source)
        return now if now and now != pid else None

    def stop(self) -> float:
        began_s = time.monotonic()
        self.source.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return time.monotonic() - began_s


def _unplug_and_replug(times: int, timing: LiveTiming) -> LiveCapture:
    """Take three frames from each of so many captures, all of them unplugged after the third."""
    source = LiveCapture(parse_address("drill:size=64x48,fps=0,frames=3,unplug"), timing)
    last = -1
    for frame in source.frames():
        assert sequence_of(frame.pixels) is not None
        assert frame.index > last
        assert frame.segment <= times
        last = frame.index
        if frame.segment == times:
            source.stop()
    return source


def _check_replugs(times: int, timing: LiveTiming) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    status = _unplug_and_replug(times, timing).status
    assert (status.reopened, status.segment) == (times, times)
    assert status.received == status.delivered + status.dropped.unread
    assert set(Path("/proc/self/fd").iterdir()) == before
    print(f"\n{status.reopened} times unplugged and plugged in again, {status.delivered} frames")  # noqa: T201


def test_a_source_comes_back_each_time_that_it_is_unplugged(quick: LiveTiming) -> None:
    # A child takes 0.1 to 0.2 s to start; test_v4l2.py unplugs hundreds of times within one.
    _check_replugs(40, quick)


@pytest.mark.slow
def test_a_source_comes_back_a_thousand_times(quick: LiveTiming) -> None:
    _check_replugs(1000, quick)


def test_what_a_drill_of_all_faults_delivers_is_exact(quick: LiveTiming) -> None:
    steps = "frames=20,torn=3,frames=5,gap=4,frames=5,size=32x24,frames=10,no-signal=0.3,frames=10,stall=0.1,frames=5"
    source = LiveCapture(parse_address(f"drill:{SMALL},{steps}"), quick)
    frames = list(source.frames())
    status = source.status
    assert status.received == 55
    assert status.received == status.delivered + status.dropped.unread
    assert (status.dropped.torn, status.dropped.missed) == (3, 4)
    assert (status.format_changes, status.reopened, status.segment) == (1, 0, 2)
    assert {frame.pixels.shape for frame in frames if frame.segment == 0} == {(48, 64)}
    assert {frame.pixels.shape for frame in frames if frame.segment > 0} == {(24, 32)}
    # Of a drill, the picture carries the very number that `index` must have.
    assert all(sequence_of(frame.pixels) == frame.index for frame in frames)
    assert frames[-1].index == 55 + 3 + 4 - 1
    assert status.state is LiveState.ENDED


def _has_received(source: LiveCapture, least: int) -> Callable[[], bool]:
    return lambda: source.status.received >= least


def test_a_slow_consumer_gets_the_newest_and_what_it_missed_is_counted(
    quick: LiveTiming, until: Callable[..., float]
) -> None:
    # Only stalls are judged by time here, and this consumer makes some.
    source = LiveCapture(parse_address(f"drill:{SMALL},frames=100"), replace(quick, stall_s=5.0))
    taken = []
    for frame in source.frames():
        taken.append(frame)
        assert sequence_of(frame.pixels) == frame.index
        until(_has_received(source, min(source.status.received + 10, 100)))
    status = source.status
    assert (status.received, status.delivered) == (100, len(taken))
    assert status.dropped.unread == 100 - len(taken)
    assert len(taken) <= 12
    assert taken[-1].index == 99
    print(f"\n100 received = {len(taken)} delivered + {status.dropped.unread} dropped")  # noqa: T201


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ("frames=9000", LiveState.LIVE),
        ("frames=9,freeze=9000", LiveState.FROZEN_BY_MACHINE),
        ("frames=9,no-signal=60,frames=9", LiveState.NO_SIGNAL),
        ("frames=9,hang", LiveState.LOST),
        ("frames=9,stall=60", LiveState.LOST),
        ("frames=9,unplug", LiveState.LOST),
        ("frames=9,die=11", LiveState.LOST),
        ("hang-open,frames=9", LiveState.OPENING),
    ],
)
def test_a_fault_shows_within_its_time_and_the_frames_end_when_stopped(
    steps: str, state: LiveState, quick: LiveTiming, until: Callable[..., float], gone: Callable[[int], bool]
) -> None:
    # Long waits before the next try, so that it is stopped in the midst of one.
    watched = Watched(f"{SMALL},{steps}", replace(quick, backoff_first_s=30.0, backoff_last_s=30.0))
    until(lambda: watched.is_in(state))
    status = watched.source.status
    assert (status.reason == "") == (state is LiveState.LIVE)
    pid = _pid(watched.source)
    assert watched.stop() < 1.0
    assert watched.source.status.state is LiveState.ENDED
    assert pid is None or gone(pid)


def test_a_source_that_hangs_is_noticed_within_a_second_and_comes_back(until: Callable[..., float]) -> None:
    """With the timing of the clinic, and a child that neither answers nor lets go of the interpreter."""
    watched = Watched("size=64x48,fps=30,frames=15,hang", LiveTiming())
    until(lambda: len(watched.frames) == 15)
    last = watched.frames[-1].arrived_s
    assert last is not None
    until(lambda: watched.is_in(LiveState.LOST))
    noticed_s = time.monotonic() - last
    until(lambda: watched.is_in(LiveState.LIVE))
    back_s = time.monotonic() - last
    watched.stop()
    assert LiveTiming().stall_s < noticed_s < LiveTiming().stall_s + 0.5
    print(f"\nhang noticed after {noticed_s:.2f} s, pictures again after {back_s:.2f} s")  # noqa: T201


@pytest.mark.parametrize(
    "steps", ["hang-open", "stall=60", "frames=3,stall=60", "frames=3,hang", "fps=0,frames=999999"]
)
def test_a_child_that_is_killed_is_noticed_and_another_one_started(
    steps: str, quick: LiveTiming, until: Callable[..., float]
) -> None:
    timing = replace(quick, stall_s=30.0, open_s=30.0)
    watched = Watched(f"{SMALL},{steps}", timing)
    kills, pid = 5, None
    for _ in range(kills):
        until(lambda: watched.pid_other_than(pid))  # noqa: B023 - called before the next round
        pid = watched.pid_other_than(pid)
        assert pid is not None
        if "frames" in steps:
            received = watched.source.status.received
            until(lambda: watched.source.status.received > received)  # noqa: B023 - likewise
        os.kill(pid, signal.SIGKILL)
    until(lambda: watched.pid_other_than(pid))
    watched.stop()
    assert all(sequence_of(frame.pixels) is not None for frame in watched.frames)
    print(f"\n{kills} children killed at {steps}: {kills} started anew")  # noqa: T201


# Captures in a thread, says which process does it, and goes on for ever.
PARENT = """
import sys, threading
from edgefetal_runtime.sources.live.live import open_live
source = open_live(sys.argv[1])
threading.Thread(target=lambda: [None for _ in source.frames()], daemon=True).start()
pause = threading.Event()
while source.capture._session is None or source.status.received < int(sys.argv[2]):
    pause.wait(0.005)
print(source.capture._session.link.pid, flush=True)
pause.wait()
"""


@pytest.mark.parametrize(
    ("steps", "least"), [("hang-open", 0), ("frames=9000", 5), ("frames=5,hang", 5), ("frames=5,stall=900", 5)]
)
def test_a_child_dies_with_a_parent_that_is_killed_and_leaves_no_memory(
    steps: str, least: int, until: Callable[..., float], gone: Callable[[int], bool]
) -> None:
    before = _shared_memory()
    command = [sys.executable, "-c", PARENT, f"drill:{SMALL},{steps}", str(least)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    took_s = until(lambda: gone(child), within_s=2.0)
    assert _shared_memory() <= before
    print(f"\nparent killed at {steps}: child gone after {took_s * 1000:.0f} ms")  # noqa: T201


def _shared_memory() -> set[str]:
    # What Linux keeps named shared memory in; nothing is written there.
    return {path.name for path in Path("/dev/shm").iterdir() if "edgefetal" in path.name or "psm_" in path.name}  # noqa: S108 - only listed


def test_a_child_that_is_halted_is_killed_and_another_one_started(
    quick: LiveTiming, until: Callable[..., float], gone: Callable[[int], bool]
) -> None:
    watched = Watched(f"{SMALL},frames=9000", quick)
    for _ in range(3):
        until(lambda: watched.is_in(LiveState.LIVE))
        pid = _pid(watched.source)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        until(lambda: gone(pid))  # noqa: B023 - called before the next round
    until(lambda: watched.is_in(LiveState.LIVE))
    watched.stop()
    assert watched.source.status.reopened == 3


def test_stop_is_heard_from_a_signal_handler(quick: LiveTiming) -> None:
    source = LiveCapture(parse_address(f"drill:{SMALL},frames=9000"), quick)
    handled: list[float] = []

    def stop(*_: Any) -> None:
        handled.append(time.monotonic())
        source.stop()

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        for frame in source.frames():
            if frame.index >= 5 and not handled:
                os.kill(os.getpid(), signal.SIGUSR1)
        assert time.monotonic() - handled[0] < 1.0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_frames_that_nobody_wants_any_more_end_the_child(quick: LiveTiming, gone: Callable[[int], bool]) -> None:
    source = LiveCapture(parse_address(f"drill:{SMALL},frames=9000"), quick)
    frames = source.frames()
    next(frames)
    pid = _pid(source)
    assert pid is not None
    frames.close()
    assert gone(pid)
    assert _pid(source) is None


def test_a_process_without_room_for_another_file_says_so_and_leaks_none() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(Path("/proc/self/fd").iterdir())
    refusals = []
    for room in itertools.count(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, limits[1]))
        try:
            CaptureProcess(parse_address("drill:frames=1")).close()
            break
        except EnvironmentLacksError as error:
            refusals.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert set(Path("/proc/self/fd").iterdir()) == before
    # Without room for the memory, for either end of the bell, and for the pipes of the child.
    assert len(refusals) >= 4
    assert all("close other programs and try again" in refusal for refusal in refusals)


def test_a_source_can_be_run_twice(quick: LiveTiming) -> None:
    source = LiveCapture(parse_address(f"drill:{SMALL},frames=5"), quick)
    assert len(list(source.frames())) + len(list(source.frames())) + source.status.dropped.unread == 10
    assert source.status.segment == 1
