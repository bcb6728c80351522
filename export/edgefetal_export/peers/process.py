"""A peer in a process of its own, which is spoken to over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from edgefetal_devices.errors import CheckFailedError, EdgeFetalError, EnvironmentLacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from typing_extensions import Self

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.peer import Job, Peer, Recording
    from edgefetal_export.peers.table import PeerChoice

_END_S: Final = 10.0
# Tells the kernel to forget the most memory that this process had.
_FORGET_PEAK: Final = "5"


@dataclass(frozen=True)
class Examined:
    """What examining a recording gave.

    Args:
        seconds: that it took.
        value_mm: head circumference, or None.
    """

    seconds: float
    value_mm: float | None


class PeerProcess:
    """A peer that is ready in its process, until it is closed."""

    def __init__(self, choice: PeerChoice, job: Job) -> None:
        """Start it and wait until it is ready, which for a quantiser takes minutes.

        Args:
            choice: the peer.
            job: what it is told.

        Raises:
            EnvironmentLacksError: it is not installed, or its process ended.
            EdgeFetalError: it cannot do this job; says why.
        """
        self.name = choice.name
        # A forked child would have the threads' locks of its parent without the threads.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, choice, job), daemon=True)
        since_s = time.perf_counter()
        self._process.start()
        theirs.close()
        try:
            self.settings = cast("str", self._answer())
        except BaseException:
            self.close()
            raise
        self.prepare_s = time.perf_counter() - since_s

    def examine(self, recording: Recording) -> Examined:
        """Have a recording examined.

        Raises:
            EdgeFetalError: it could not; says why.
        """
        return cast("Examined", self._answer("examine", recording))

    def measure(self, case: HeadCase) -> float | None:
        """Have a picture measured; return HC in mm, or None.

        Raises:
            EdgeFetalError: it could not; says why.
        """
        return cast("float | None", self._answer("measure", case))

    def peak_mb(self) -> float | None:
        """Return the most memory that it had since it was ready, or None where the kernel does not say.

        Raises:
            EnvironmentLacksError: its process ended.
        """
        return cast("float | None", self._answer("peak_mb", None))

    def _answer(self, *asked: object) -> object:
        """Ask, unless it speaks first, and wait for what it says.

        Raises:
            EnvironmentLacksError: its process ended.
            EdgeFetalError: what it raised.
        """
        try:
            if asked:
                self._connection.send(asked)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_END_S)
            message = f"the process of {self.name} ended (code {self._process.exitcode})"
            raise EnvironmentLacksError(message) from error
        if isinstance(answer, EdgeFetalError):
            raise answer
        return answer

    def close(self) -> None:
        """End its process."""
        self._connection.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its process."""
        self.close()


def _serve(connection: Connection, choice: PeerChoice, job: Job) -> None:
    """Make the peer ready, and do what is asked until nobody asks any more."""
    # Ctrl-C goes to all; the parent then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Notes of the libraries are not the command's.
    _silence()
    peer = _tried(choice.open, job)
    if isinstance(peer, EdgeFetalError):
        connection.send(peer)
        return
    connection.send(cast("Peer", peer).settings)
    _forget_peak()
    with suppress(EOFError, BrokenPipeError):
        while True:
            what, argument = connection.recv()
            connection.send(_tried(_ASKED[what], peer, argument))


def _tried(function: Callable[..., object], *arguments: object) -> object:
    """Return what a function returns, or why it could not, as an error that travels."""
    try:
        return function(*arguments)
    except EdgeFetalError as error:
        return error
    except ImportError as error:
        return EnvironmentLacksError(f"{error}; pip install 'edgefetal[build,peers]'")
    # Every tool has exceptions of its own, and none may end the others' figures.
    except Exception as error:  # noqa: BLE001 - likewise
        return CheckFailedError(f"{type(error).__name__}: {error}")


def _examine(peer: Peer, recording: Recording) -> Examined:
    since_s = time.perf_counter()
    value_mm = peer.examine(recording)
    return Examined(time.perf_counter() - since_s, value_mm)


def _measure(peer: Peer, case: HeadCase) -> float | None:
    return peer.measure(case.frame())


def _peak_mb(_peer: Peer, _nothing: None) -> float | None:
    """Return the most memory that this process and its children had since that was last forgotten, in MB.

    Where they had it at different times it is less.
    """
    peaks = []
    try:
        for folder in _family():
            lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
            peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    except OSError:
        return None
    return sum(peaks) if peaks else None


_ASKED: Final[Mapping[str, Callable[..., object]]] = {"examine": _examine, "measure": _measure, "peak_mb": _peak_mb}


def _family() -> list[Path]:
    """Return the kernel's folders of this process and of its children."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return [Path("/proc/self"), *(Path("/proc", child) for of_thread in children for child in of_thread)]


def _forget_peak() -> None:
    # A kernel without it leaves the peak of the preparation in.
    with suppress(OSError):
        for folder in _family():
            (folder / "clear_refs").write_text(_FORGET_PEAK, encoding="ascii")


def _silence() -> None:
    """Send what libraries print to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
