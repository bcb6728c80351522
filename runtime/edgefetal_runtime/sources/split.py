"""One recording that holds several sweeps of the same length, as ACOUSLIC-AI's stacks do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgefetal_devices.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.sources.protocol import Source


@dataclass(frozen=True)
class SplitSource:
    """A recording cut into sweeps of equal length, named `sweep 1`, `sweep 2` and so on.

    Args:
        source: the recording, one sweep so far.
        frames_per_sweep: frames of each sweep.

    Raises:
        SourceError: the recording is known not to hold a whole number of sweeps.
    """

    source: Source
    frames_per_sweep: int

    def __post_init__(self) -> None:
        """Refuse a length that leaves a piece over, before anything is read."""
        count = self.source.frame_count
        if self.frames_per_sweep < 1 or (count is not None and count % self.frames_per_sweep):
            raise SourceError(
                f"{count} frames cannot be cut into sweeps of {self.frames_per_sweep}; give the number of frames of "
                "each sweep with --sweep-frames."
            )

    @property
    def kind(self) -> str:
        """Return what the recording is."""
        return self.source.kind

    @property
    def frame_count(self) -> int | None:
        """Return how many frames it announces."""
        return self.source.frame_count

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, counted from 0 in each sweep.

        Raises:
            SourceError: a frame cannot be read, or the last sweep is not whole.
        """
        number = 0
        start_s = 0.0
        for number, frame in enumerate(self.source.frames(), start=1):
            sweep, index = divmod(number - 1, self.frames_per_sweep)
            start_s = frame.timestamp_s if index == 0 else start_s
            yield replace(frame, sweep=f"sweep {sweep + 1}", index=index, timestamp_s=frame.timestamp_s - start_s)
        if number % self.frames_per_sweep:
            raise SourceError(
                f"The last sweep holds {number % self.frames_per_sweep} of {self.frames_per_sweep} frames; give the "
                "number of frames of each sweep with --sweep-frames."
            )
