"""The live part of `edgefetal run`: a source that cannot be read again, watched while it is examined."""

from __future__ import annotations

import contextlib
import enum
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefetal.cli.keeping import Kept
    from edgefetal_runtime.exam.pipeline import ExamResult
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.live.live import LiveSource


@contextlib.contextmanager
def _logs() -> Iterator[None]:
    """Write structured logs for a journal; in a terminal the screen says what they would."""
    import logging

    from edgefetal_runtime.service.logs import structured_logs

    if not sys.stderr.isatty():
        with structured_logs():
            yield
        return
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class Sweeps(str, enum.Enum):
    """How the sweeps of a live picture are told apart."""

    FOUND = "found"
    COMMANDED = "commanded"


@dataclass(frozen=True)
class LiveOptions:
    """What the user chose for a live source.

    Args:
        seconds: end after so long, or None.
        sweeps: how they are told apart.
        record: keep the video too.
        port: of /health and /metrics; None serves neither.
    """

    seconds: float | None
    sweeps: Sweeps
    record: bool
    port: int | None

    def given(self) -> list[str]:
        """Return the options that were given."""
        chosen = {
            "--seconds": self.seconds is not None,
            "--sweeps": self.sweeps is not Sweeps.FOUND,
            "--record": self.record,
            "--port": self.port is not None,
        }
        return [option for option, given in chosen.items() if given]


def examine_live(
    source: LiveSource,
    bundle: Bundle,
    network: Network,
    kept: Kept,
    options: LiveOptions,
    age: GestationalAge | None,
    *,
    store: Path | None,
    simulated: bool,
) -> tuple[ExamResult, dict[str, Any]]:
    """Examine a live source until it ends, a signal asks for the end, or the time is over, and save.

    Args:
        source: the live source.
        bundle: the bundle that the network is of.
        network: the network, loaded.
        kept: where the examination is kept.
        options: what the user chose.
        age: the gestational age, where it is known beforehand.
        store: where free space is watched; the folder that we are in if None.
        simulated: the source is a simulation.

    Returns:
        The result, already saved, and the session's counts and latencies.

    Raises:
        EnvironmentLacksError: the source cannot be opened on this machine at all, or the port is taken.
        OutputError: the examination cannot be saved.
    """
    from importlib import metadata

    from edgefetal.cli import terminal
    from edgefetal_runtime.service.metrics import Metrics
    from edgefetal_runtime.service.pulse import Idle
    from edgefetal_runtime.service.service import ServiceSettings, service_of
    from edgefetal_runtime.service.session import Keeper, LiveSession
    from edgefetal_runtime.service.stop import Stop
    from edgefetal_runtime.sources.live.status import LiveState
    from edgefetal_runtime.sweep.finder import SweepFinder

    metrics = Metrics(metadata.version("edgefetal"), bundle.sha256, [state.value for state in LiveState])
    finder = SweepFinder(commanded=options.sweeps is Sweeps.COMMANDED)
    sessions: list[LiveSession] = []
    service = service_of(
        ServiceSettings(store=store or Path(), port=options.port),
        metrics,
        why_idle=lambda: sessions[0].why_idle() if sessions else Idle.STARTING,
    )
    keeper = Keeper(
        take_picture=kept.take_picture,
        checkpoint=kept.checkpoint,
        record_frame=kept.record_frame if options.record else lambda _: None,
        notes=kept.notes,
    )
    with _logs(), service, Stop(on_stop=source.stop) as stop:
        session = LiveSession(source, bundle, network, finder, service, keeper)
        sessions.append(session)
        service.ready()
        timer = None if options.seconds is None else threading.Timer(options.seconds, stop.request)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            with terminal.live(session.view, finder.command if options.sweeps is Sweeps.COMMANDED else None):
                result = session.run(source.name, age, simulated=simulated)
        finally:
            if timer is not None:
                timer.cancel()
        service.stopping()
        with stop.saving():
            kept.save(result.exam)
            metrics.exam(saved=True)
        return result, session.report()
