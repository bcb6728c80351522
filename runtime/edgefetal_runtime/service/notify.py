"""Telling systemd how the service does, by the protocol of sd_notify(3); without systemd nothing happens."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import EnvironmentLacksError

if TYPE_CHECKING:
    from collections.abc import Mapping

# systemd reads its socket at once; a sender must not hang on one that it does not.
_SEND_TIMEOUT_S = 1.0
_MAX_STATUS = 200
# What systemd writes for "no limit".
_INFINITE_USEC = 2**64 - 1


@dataclass(frozen=True)
class Notifier:
    """Sends notifications; each returns whether systemd took it.

    Args:
        address: of the datagram socket: a path, or `@` and an abstract name; None without systemd.
    """

    address: str | None

    def ready(self, status: str) -> bool:
        """Say that the start is done, from the process that systemd shall watch."""
        return self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> bool:
        """Show one line in `systemctl status`."""
        return self._send(f"STATUS={_one_line(status)}")

    def watchdog(self) -> bool:
        """Put off the restart by another WatchdogSec."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """Say that the service ends on its own account."""
        return self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        if self.address is None:
            return False
        # An abstract name begins with a zero byte, which no environment can hold; @ stands for it.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as stream:
                stream.settimeout(_SEND_TIMEOUT_S)
                stream.connect(address)
                stream.sendall(message.encode(errors="replace"))
        except OSError:
            # The pipeline must not end because systemd does not listen; a watchdog unheard restarts it anyway.
            return False
        return True


def _one_line(text: str) -> str:
    """Make a status of text, in which a line break would begin another assignment."""
    return " ".join(text.split())[:_MAX_STATUS]


def notifier_from(environment: Mapping[str, str]) -> Notifier:
    """Read NOTIFY_SOCKET.

    Raises:
        EnvironmentLacksError: it names a kind of socket that is not spoken here.
    """
    address = environment.get("NOTIFY_SOCKET")
    if address is not None and address[:1] not in {"/", "@"}:
        message = f"NOTIFY_SOCKET is {address[:40]!r}, neither a path nor an abstract name; start with Type=notify."
        raise EnvironmentLacksError(message)
    return Notifier(address)


def watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Read after how many seconds without WATCHDOG=1 systemd restarts a process, as sd_watchdog_enabled(3) does.

    Args:
        environment: WATCHDOG_USEC, and WATCHDOG_PID where the figure is for one process only.
        pid: the process that asks.

    Returns:
        The seconds; None where systemd expects nothing of this process.

    Raises:
        EnvironmentLacksError: the figures are none.
    """
    limit_usec = _whole_number(environment, "WATCHDOG_USEC")
    for_pid = _whole_number(environment, "WATCHDOG_PID")
    if limit_usec is None or for_pid not in {None, pid}:
        return None
    if not 0 < limit_usec < _INFINITE_USEC:
        message = f"WATCHDOG_USEC is {limit_usec}; set WatchdogSec= in the unit to a time above zero, or leave it out."
        raise EnvironmentLacksError(message)
    return limit_usec / 1e6


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_INFINITE_USEC))):
        message = f"{name} is {text[:40]!r}, which is no whole number; set WatchdogSec= in the unit and leave it alone."
        raise EnvironmentLacksError(message)
    return int(text)
