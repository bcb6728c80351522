"""The watchdog itself: fed while results come out, starved by every way in which a pipeline can stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgefetal_runtime.service.notify import Notifier
from edgefetal_runtime.service.pulse import Idle, Pulse
from edgefetal_runtime.service.watchdog import Verdict, Watchdog, period_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 10.0
DEADLINE_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


class Heard(Notifier):
    """A systemd that keeps what it hears."""

    def __init__(self) -> None:
        super().__init__("@heard")
        object.__setattr__(self, "messages", [])

    def _send(self, message: str) -> bool:
        self.messages.append(message)  # type: ignore[attr-defined]  # the class is frozen
        return True

    @property
    def feeds(self) -> int:
        return int(self.messages.count("WATCHDOG=1"))  # type: ignore[attr-defined]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(clock)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_every_look_at_a_living_pipeline_feeds_once(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0)
    pulse.busy()
    for _ in range(100):
        with pulse.frame():
            clock.now_s += 1.0
        assert watchdog.look().fed
    assert heard.feeds == 100


def test_a_hung_stage_starves_it_until_the_frame_comes_out(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0)
    pulse.busy()
    pulse.frame_begun()
    fed = []
    for _ in range(30):
        clock.now_s += 1.0
        fed.append(watchdog.look().fed)
    assert fed == [True] * 10 + [False] * 20
    pulse.frame_done()
    assert watchdog.look().fed
    statuses = [message for message in heard.messages if message.startswith("STATUS=")]  # type: ignore[attr-defined]
    assert statuses == ["STATUS=A frame has been in analysis for 11.0 s; the limit is 10 s.", "STATUS=Frames flow."]


def test_a_source_that_flaps_does_not_feed_it_over_a_hung_stage(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    answers = iter([None, Idle.NO_SOURCE] * 20)
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0, why_idle=lambda: next(answers))
    pulse.frame_begun()
    fed = []
    for _ in range(40):
        clock.now_s += 1.0
        fed.append(watchdog.look().fed)
    assert fed == [True] * 10 + [False] * 30


def test_a_night_without_a_source_is_no_hang(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0, why_idle=lambda: Idle.NO_SOURCE)
    for _ in range(12 * 360):
        clock.now_s += 10.0
        assert watchdog.look().fed


def test_a_source_that_gives_frames_which_nobody_takes_starves_it(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0, why_idle=lambda: None)
    fed = []
    for _ in range(20):
        fed.append(watchdog.look().fed)
        clock.now_s += 1.0
    assert fed == [True] * 11 + [False] * 9


def test_a_clock_that_jumps_ahead_costs_one_feed(pulse: Pulse, clock: Clock, heard: Heard) -> None:
    watchdog = Watchdog(pulse, heard, LIMIT_S, 1.0)
    pulse.busy()
    clock.now_s += 3600.0
    assert not watchdog.look().fed
    pulse.frame_done()
    assert watchdog.look().fed


def test_the_thread_feeds_and_stops(pulse: Pulse, heard: Heard) -> None:
    looks = threading.Semaphore(0)
    watchdog = Watchdog(pulse, heard, LIMIT_S, 0.001, on_look=lambda _: looks.release())
    watchdog.start()
    assert all(looks.acquire(timeout=DEADLINE_S) for _ in range(5))
    watchdog.stop()
    assert not watchdog.running()
    assert heard.feeds >= 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_question_ends_the_thread_and_so_the_feeding(pulse: Pulse, heard: Heard) -> None:
    def broken() -> Idle | None:
        raise RuntimeError("no answer")

    watchdog = Watchdog(pulse, heard, LIMIT_S, 0.001, why_idle=broken)
    watchdog.start()
    watchdog._thread.join(DEADLINE_S)
    assert not watchdog.running()
    assert heard.feeds == 0


def test_a_question_that_hangs_starves_it_and_does_not_hold_up_the_end(
    pulse: Pulse, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefetal_runtime.service.watchdog._JOIN_S", 0.05)
    asked, release = threading.Event(), threading.Event()

    def hangs() -> Idle | None:
        asked.set()
        release.wait(DEADLINE_S)
        return None

    watchdog = Watchdog(pulse, heard, LIMIT_S, 0.001, why_idle=hangs)
    watchdog.start()
    assert asked.wait(DEADLINE_S)
    watchdog.stop()
    assert watchdog.running()
    assert heard.feeds == 0
    release.set()
    watchdog._thread.join(DEADLINE_S)
    assert not watchdog.running()


def test_stopping_one_that_never_began_is_nothing(pulse: Pulse, heard: Heard) -> None:
    Watchdog(pulse, heard, LIMIT_S, 1.0).stop()
    assert heard.feeds == 0


@pytest.mark.parametrize(("limit_s", "expected_s"), [(None, 1.0), (30.0, 1.0), (2.0, 0.5), (0.2, 0.05)])
def test_it_looks_at_least_four_times_in_every_watchdog_time(limit_s: float | None, expected_s: float) -> None:
    assert period_s(limit_s) == expected_s


def test_a_verdict_says_whether_systemd_took_the_feed(pulse: Pulse) -> None:
    looked: list[Verdict] = []
    Watchdog(pulse, Notifier(None), LIMIT_S, 1.0, on_look=looked.append).look()
    assert looked[0].liveness.alive
    assert not looked[0].fed


# A pipeline that flows until it reads a line on stdin, which says how to stop.
PIPELINE = textwrap.dedent(
    """
    import ctypes, os, signal, sys, threading, select
    from edgefetal_runtime.service.notify import notifier_from, watchdog_s
    from edgefetal_runtime.service.pulse import Idle, Pulse
    from edgefetal_runtime.service.watchdog import Watchdog, period_s

    notifier, pulse = notifier_from(os.environ), Pulse()
    limit_s = watchdog_s(os.environ, os.getpid())
    watchdog = Watchdog(pulse, notifier, frame_limit_s=limit_s, every_s=period_s(limit_s))
    watchdog.start()
    pulse.busy()
    notifier.ready("Up.")
    how = ""
    while not how:
        with pulse.frame():
            readable, _, _ = select.select([sys.stdin], [], [], 0.01)
            how = sys.stdin.readline().strip() if readable else ""
    print(how, flush=True)
    if how == "idle":
        while True:
            pulse.idle(Idle.NO_SOURCE)
            if select.select([sys.stdin], [], [], 0.05)[0]:
                break
    elif how == "hung":
        with pulse.frame():
            threading.Event().wait()
    elif how == "holds the interpreter":
        with pulse.frame():
            ctypes.PyDLL(None).pause()
    elif how == "fails":
        while True:
            try:
                with pulse.frame():
                    select.select([], [], [], 0.01)
                    raise ValueError
            except ValueError:
                pass
    elif how == "dead":
        threading.Event().wait()
    elif how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    """
)
WATCHDOG_S = 0.6


class FakeSystemd:
    """Starts the pipeline, and kills it when it was not fed for WatchdogSec, as systemd does."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = str(folder / "notify")
        self._socket.bind(self._address)

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        environment = os.environ | {"NOTIFY_SOCKET": self._address, "WATCHDOG_USEC": str(int(1e6 * WATCHDOG_S))}
        child = subprocess.Popen(
            [sys.executable, "-c", PIPELINE], env=environment, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.wait_for("READY=1", DEADLINE_S)
            yield child
        finally:
            child.kill()
            child.communicate()

    def wait_for(self, beginning: str, within_s: float) -> bool:
        """Hear messages until one begins so."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                if self._socket.recv(4096).decode().startswith(beginning):
                    return True
        return False

    def starved(self) -> bool:
        """Say whether the feeding stops before the deadline."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            if not self.wait_for("WATCHDOG=1", WATCHDOG_S):
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    systemd = FakeSystemd(tmp_path)
    yield systemd
    systemd.close()


def say(child: subprocess.Popen[str], how: str) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(how + "\n")
    child.stdin.flush()
    assert child.stdout.readline().strip() == how


@pytest.mark.parametrize("how", ["hung", "holds the interpreter", "fails", "dead", "stopped"])
def test_a_real_pipeline_that_stops_is_starved_and_one_started_anew_is_fed(systemd: FakeSystemd, how: str) -> None:
    with systemd.started() as child:
        assert all(systemd.wait_for("WATCHDOG=1", DEADLINE_S) for _ in range(3))
        say(child, how)
        assert systemd.starved()
        assert child.poll() is None
    assert child.returncode == -signal.SIGKILL
    with systemd.started():
        assert systemd.wait_for("WATCHDOG=1", DEADLINE_S)


def test_a_real_pipeline_that_declares_idle_is_fed_for_longer_than_a_frame_may_take(systemd: FakeSystemd) -> None:
    with systemd.started() as child:
        say(child, "idle")
        began_s = time.monotonic()
        while time.monotonic() - began_s < 2 * WATCHDOG_S:
            assert systemd.wait_for("WATCHDOG=1", DEADLINE_S)
