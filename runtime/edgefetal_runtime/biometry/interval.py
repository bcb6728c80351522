"""From a measured value to an interval that holds the truth at the stated level."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.scale import NoScale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.biometry.measurement import Quantity
    from edgefetal_runtime.infer.bundle import Intervals
    from edgefetal_runtime.scale import Scale


NO_TABLES = "the bundle has no interval tables"
NOT_WHOLE = "a part of the outline was not seen, and the intervals hold for whole ones"
PIXELS_UNKNOWN = "pixels were taken as square, and nothing says that they are"


def frame_half_width(intervals: Intervals, measure: str, value: float) -> float | None:
    """Half width for a value measured on one frame, from the bundle's table; None where it has no such measure.

    Split-conformal (Vovk et al. 2005), by bands of the measured value.
    """
    for band in intervals.bands.get(measure, ()):
        if band.below is None or value < band.below:
            return band.half_width
    return None


def fused_share(shared: float, effective_frames: float) -> float:
    """Share of a single frame's half width that is left when frames are fused.

    The error of a frame is taken as a part that all frames of an examination share and a part of its own. Only the
    latter averages out, and only as fast as frames are independent.

    Args:
        shared: share of the error's variance that is common, 0 to 1.
        effective_frames: number of independent frames that the fused ones are worth, at least 1.
    """
    return math.sqrt(shared + (1 - shared) / effective_frames)


def scale_half_width(value: float, scale: Scale, level: float) -> float:
    """Half width that the pixel size's uncertainty alone gives a length, at a level, taking it as normal."""
    return NormalDist().inv_cdf((1 + level) / 2) * scale.relative_uncertainty * value


def with_interval(
    quantity: Quantity,
    measured: Measured,
    scale: Scale | NoScale,
    intervals: Intervals | None,
    effective_frames: float = 1.0,
) -> Measured:
    """Add the interval to a value: the network's and the geometry's error, widened by that of the pixel size.

    The two are independent, so their half widths add in squares.

    Args:
        quantity: what was measured.
        measured: its value.
        scale: pixel size, or why it is unknown (a ratio needs none).
        intervals: the bundle's tables, or None where it has none.
        effective_frames: number of independent frames that the value is worth.
    """
    if intervals is None:
        return replace(measured, no_interval=NO_TABLES)
    if measured.unit == "1" and not scale:
        return replace(measured, no_interval=PIXELS_UNKNOWN)
    half_width = frame_half_width(intervals, quantity.name, measured.value)
    if half_width is None:
        return replace(measured, no_interval=f"the bundle has no table for {quantity.name}")
    half_width *= fused_share(intervals.shared, effective_frames)
    if measured.unit == "mm" and scale:
        half_width = math.hypot(half_width, scale_half_width(measured.value, scale, intervals.level))
    return replace(measured, interval=(max(0.0, measured.value - half_width), measured.value + half_width))


def measurements(
    lengths: Mapping[Quantity, float],
    ratios: Mapping[Quantity, float],
    scale: Scale | NoScale,
    intervals: Intervals | None,
    effective_frames: float = 1.0,
    *,
    whole: bool = True,
) -> dict[Quantity, Measured | Abstained]:
    """Turn what was measured on one frame into values with intervals, or the reasons why there are none.

    Args:
        lengths: lengths by quantity, in mm where `scale` is one; without one they are not given.
        ratios: ratios by quantity, which need no scale but square pixels.
        scale: pixel size, or why it is unknown.
        intervals: the bundle's tables, or None where it has none.
        effective_frames: number of independent frames that the values are worth.
        whole: whether all of the structure was seen; the tables hold for no others.
    """
    found: dict[Quantity, Measured | Abstained] = {
        quantity: Abstained(scale.reason) if isinstance(scale, NoScale) else quantity.of(value)
        for quantity, value in lengths.items()
    } | {quantity: quantity.of(value) for quantity, value in ratios.items()}
    return {
        quantity: _bounded(quantity, value, scale, intervals, effective_frames, whole=whole)
        for quantity, value in found.items()
    }


def _bounded(
    quantity: Quantity,
    value: Measured | Abstained,
    scale: Scale | NoScale,
    intervals: Intervals | None,
    effective_frames: float,
    *,
    whole: bool,
) -> Measured | Abstained:
    if isinstance(value, Abstained):
        return value
    if not whole:
        return replace(value, no_interval=NOT_WHOLE)
    return with_interval(quantity, value, scale, intervals, effective_frames)
