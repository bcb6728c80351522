"""The value that flows through the clinic's path: one picture of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.scale import NoScale, Scale


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture from a source.

    Args:
        pixels: grey picture, shape (H, W), uint8.
        sweep: name of the sweep that it belongs to; frames of one sweep show one anatomy and may be fused.
        index: position in the sweep, from 0; a live source counts the frames that were dropped too.
        timestamp_s: time in the source, seconds from the start of the sweep.
        scale: pixel size, or why it is unknown (then nothing in mm may be said).
        origin_px: where the frame begins in the picture as stored, (x, y); not (0, 0) where a source crops it.
        arrived_s: CLOCK_MONOTONIC when a live frame left the driver, seconds; None for files.
        segment: how often a live source was interrupted before this frame, by a loss, a gap in the signal or another
            format; frames of different segments may show different settings of the machine.
    """

    pixels: npt.NDArray[np.uint8]
    sweep: str
    index: int
    timestamp_s: float
    scale: Scale | NoScale
    origin_px: tuple[int, int] = (0, 0)
    arrived_s: float | None = None
    segment: int = 0
