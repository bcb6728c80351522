"""What is measured on the abdomen's outline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.interval import measurements
from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
from edgefetal_runtime.biometry.outline import Outline, RoundStructure
from edgefetal_runtime.biometry.quantities import AC, APAD, TAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.infer.bundle import Intervals

# A true cross-section is nearly round; an oblique one is long.
ABDOMEN_SHAPE = RoundStructure("abdomen", min_axis_ratio=0.7)

_NO_DIRECTION = Abstained("where the front of the abdomen lies is not known; AC needs neither diameter")


def measure_abdomen(
    outline: Outline,
    intervals: Intervals | None = None,
    effective_frames: float = 1.0,
    anterior_rad: float | None = None,
) -> Mapping[Quantity, Measured | Abstained]:
    """Measure an abdomen.

    Which diameter is the anteroposterior one cannot be told from a contour, and the longer is not always the transverse
    one, so the two are named only where the direction from the spine to the front is known.

    Args:
        outline: of the abdomen.
        intervals: the bundle's tables, or None where it has none; they hold for whole outlines only.
        effective_frames: number of independent frames that the values are worth.
        anterior_rad: direction from the spine to the front, from x towards y, or None.
    """
    ellipse = outline.ellipse
    lengths = {AC: ellipse.circumference()}
    if anterior_rad is None:
        return {
            **measurements(lengths, {}, outline.scale, intervals, effective_frames, whole=outline.whole),
            APAD: _NO_DIRECTION,
            TAD: _NO_DIRECTION,
        }
    lengths[APAD] = ellipse.diameter(anterior_rad)
    lengths[TAD] = ellipse.diameter(anterior_rad + math.pi / 2)
    return measurements(lengths, {}, outline.scale, intervals, effective_frames, whole=outline.whole)
