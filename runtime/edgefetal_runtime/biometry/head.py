"""The head's outline in one frame, and what is measured on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.interval import measurements
from edgefetal_runtime.biometry.outline import Outline, RoundStructure
from edgefetal_runtime.biometry.quantities import BPD, CEPHALIC_INDEX, HC, OFD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
    from edgefetal_runtime.infer.bundle import Intervals

# HC18's annotations have axis ratios of 0.66 to 0.96, three of 834 above 0.92; an abdomen is rounder than a head.
HEAD_SHAPE = RoundStructure("head", min_axis_ratio=0.6, max_axis_ratio=0.92)

HEAD_QUANTITIES = (HC, BPD, OFD, CEPHALIC_INDEX)


def measure_head(
    outline: Outline, intervals: Intervals | None = None, effective_frames: float = 1.0
) -> Mapping[Quantity, Measured | Abstained]:
    """Measure a head.

    HC is along the outer edge of the skull (ISUOG 2019). The cephalic index needs no scale, but square pixels.

    Args:
        outline: of the head.
        intervals: the bundle's tables, or None where it has none; they hold for whole outlines only.
        effective_frames: number of independent frames that the values are worth.
    """
    ellipse = outline.ellipse
    lengths = {HC: ellipse.circumference(), BPD: 2 * ellipse.semi_minor, OFD: 2 * ellipse.semi_major}
    return measurements(
        lengths,
        {CEPHALIC_INDEX: ellipse.semi_minor / ellipse.semi_major},
        outline.scale,
        intervals,
        effective_frames,
        whole=outline.whole,
    )
