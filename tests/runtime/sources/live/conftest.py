"""What the tests of live sources share: a deadline for each, and ways to look at processes."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_runtime.sources.live.status import LiveTiming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails instead."""
    limit_s = 10 * DEADLINE_S if request.node.get_closest_marker("slow") else DEADLINE_S

    def expire(*_: Any) -> None:
        message = f"The test did not end within {limit_s:g} s."
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def quick() -> LiveTiming:
    """Waits that are as short as a busy machine allows."""
    return LiveTiming(
        stall_s=0.3, open_s=5.0, freeze_s=0.1, backoff_first_s=0.001, backoff_last_s=0.004, settled_s=1.0, tick_s=0.01
    )


def _until(happened: Callable[[], object], within_s: float = 10.0) -> float:
    began_s = time.monotonic()
    pause = threading.Event()
    while not happened():
        assert time.monotonic() - began_s < within_s, "It did not happen in time."
        pause.wait(0.002)
    return time.monotonic() - began_s


@pytest.fixture(scope="session")
def until() -> Callable[..., float]:
    """Wait until something is so, at most `within_s`, and return how long it took."""
    return _until


def _gone(pid: int) -> bool:
    try:
        # The name in brackets may hold anything; the state follows it. An orphan may wait as a zombie for its reaper.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="session")
def gone() -> Callable[[int], bool]:
    """Tell whether a process has ended."""
    return _gone
