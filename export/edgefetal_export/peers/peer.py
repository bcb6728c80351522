"""What a peer is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgefetal_runtime.sources.scale_wish import NO_WISH, ScaleWish
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.protocol import Source


@dataclass(frozen=True)
class Recording:
    """One sweep across a head, which every peer examines.

    Args:
        path: a file that our runtime opens.
        stack: the same frames as a MetaImage stack, or None.
        scale: its pixel size.
        states_scale: whether the file itself says it.
        truth_mm: head circumference of who is in it, or None where nobody knows.
        simulated: whether it was drawn.
    """

    path: Path
    stack: Path | None
    scale: Scale
    states_scale: bool
    truth_mm: float | None
    simulated: bool

    def open(self) -> Source:
        """Open it by our runtime.

        Raises:
            SourceError: it is missing, empty, or of no known kind.
        """
        return open_source(self.path, NO_WISH if self.states_scale else ScaleWish(stated=self.scale))


@dataclass(frozen=True)
class Job:
    """What every peer is told before it begins.

    Args:
        bundle: folder of the bundle whose work it does.
        backend: that runs the bundle.
        threads: CPU threads of a network, or None for the tool's own choice, which is all cores.
        training: pictures that its quantiser may take ranges from; none where there are no data.
        validation: pictures that it may choose by; likewise.
    """

    bundle: Path
    backend: str
    threads: int | None
    training: tuple[HeadCase, ...] = ()
    validation: tuple[HeadCase, ...] = ()


class Peer(Protocol):
    """A tool that is ready to work."""

    @property
    def settings(self) -> str:
        """Say which version it is and how it is used, for the record."""

    def examine(self, recording: Recording) -> float | None:
        """Read a recording, choose and measure; return the head circumference in mm, or None.

        Raises:
            InputError: it cannot read such a file; says why.
        """

    def measure(self, frame: Frame) -> float | None:
        """Measure the head in one picture; return its circumference in mm, or None."""
