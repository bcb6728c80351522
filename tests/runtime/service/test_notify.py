"""What systemd hears: the datagrams of sd_notify(3), and the watchdog's figures of sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.service.notify import Notifier, notifier_from, watchdog_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket such as systemd's, and what NOTIFY_SOCKET says of it."""
    name = f"edgefetal-{uuid.uuid4()}"
    address = str(tmp_path / "notify") if request.param == "path" else f"@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
        stream.bind(address if request.param == "path" else f"\0{name}")
        stream.settimeout(5.0)
        yield stream, address


def test_every_message_is_one_datagram(listening: tuple[socket.socket, str]) -> None:
    stream, address = listening
    notifier = notifier_from({"NOTIFY_SOCKET": address})
    assert all([notifier.ready("Up."), notifier.watchdog(), notifier.status("Busy."), notifier.stopping()])
    heard = [stream.recv(4096).decode() for _ in range(4)]
    assert heard == [f"READY=1\nMAINPID={os.getpid()}\nSTATUS=Up.", "WATCHDOG=1", "STATUS=Busy.", "STOPPING=1"]


@given(status=st.text())
def test_a_status_is_never_another_assignment(status: str) -> None:
    """Over a socket pair's worth of text: whatever it holds, one line comes out."""
    sent: list[str] = []

    class Heard(Notifier):
        def _send(self, message: str) -> bool:
            sent.append(message)
            return True

    assert Heard("/x").status(status)
    assert len(sent[0].splitlines()) == 1
    assert len(sent[0]) <= 210


def test_without_systemd_nothing_happens() -> None:
    notifier = notifier_from({})
    assert not any([notifier.ready("Up."), notifier.watchdog(), notifier.status("x"), notifier.stopping()])


def test_a_socket_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    assert not Notifier(str(tmp_path / "gone")).watchdog()
    assert not Notifier("/" + "x" * 300).watchdog()


def test_a_socket_that_nobody_reads_does_not_hang_the_sender(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
        stream.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"))
        taken = 0
        while notifier.watchdog():
            taken += 1
        assert taken > 0


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_another_kind_of_socket_is_refused(address: str) -> None:
    with pytest.raises(EnvironmentLacksError, match="Type=notify"):
        notifier_from({"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_PID": "7"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "1"}, 1e-6),
    ],
)
def test_the_watchdog_is_for_the_process_that_systemd_means(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(environment, pid=7) == seconds


@pytest.mark.parametrize("usec", ["", "0", "-1", "1.5", "30s", "\u0663", str(2**64 - 1), "9" * 30])
def test_a_watchdog_that_is_no_time_is_refused(usec: str) -> None:
    with pytest.raises(EnvironmentLacksError, match="WatchdogSec="):
        watchdog_s({"WATCHDOG_USEC": usec}, pid=7)


def test_a_process_number_that_is_none_is_refused() -> None:
    with pytest.raises(EnvironmentLacksError, match="WATCHDOG_PID"):
        watchdog_s({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "me"}, pid=7)
