"""How far a measurement's interval carries: to an age, to a weight, to a centile.

Only the error of the measures is carried. A formula's own spread is not in the result: Hadlock's age from HC alone, for
one, strays by `hadlock_hc_two_sd_weeks` even where the HC is exact, and that is to be printed beside it.

The measures of one examination share their pixel size, often their frame and always their operator, so their errors are
not independent, and how far they are is not known. So all measures are taken to err the same way at once, which can
make an interval too wide and never too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.growth.charts import GrowthChart
    from edgefetal_runtime.growth.formula import Formula
    from edgefetal_runtime.growth.measures import Biometry, Measure


@dataclass(frozen=True)
class Interval:
    """A lower and an upper bound, in the unit of what they bound."""

    lower: float
    upper: float


def estimate_interval(
    formula: Formula, biometry: Biometry, measured_mm: Mapping[Measure, Interval]
) -> Interval | Abstained:
    """Carry the intervals of measures to a gestational age in weeks or a weight in g.

    Every formula rises with each of its measures, so the ends are the formula's results at all lower and at all upper
    ends.

    Args:
        formula: a dating or a weight formula.
        biometry: the measures themselves.
        measured_mm: the interval of each measure that the formula reads, taken as `biometry` was; all at one level,
            which is then that of the result or more.
    """
    centre = formula.value_of(biometry, biometry.given())
    if isinstance(centre, Abstained):
        return centre
    lacking = [measure.value for measure in formula.measures if measure not in measured_mm]
    if lacking:
        return Abstained(f"N/A: {', '.join(lacking)} has no interval")
    if any(measured_mm[measure].lower <= 0 for measure in formula.measures):
        return Abstained("N/A: the interval of a measure reaches down to nothing")
    lower = formula.value_of(biometry, {m: measured_mm[m].lower for m in formula.measures})
    upper = formula.value_of(biometry, {m: measured_mm[m].upper for m in formula.measures})
    if isinstance(lower, Abstained) or isinstance(upper, Abstained):
        return Abstained("N/A: the interval of the measures leaves the formula's range")
    return Interval(lower, upper)


def centile_interval(chart: GrowthChart, weeks: float, value: Interval) -> Interval | Abstained:
    """Carry an interval in mm or g, in the chart's own convention, to centiles: every chart rises with the value."""
    ends = [chart.read(weeks, end) for end in (value.lower, value.upper)]
    centiles = []
    for reading in ends:
        if isinstance(reading, Abstained):
            return reading
        if reading.centile is None:
            return Abstained(f"N/A: an end of the interval has no centile ({reading.note})")
        centiles.append(reading.centile)
    return Interval(centiles[0], centiles[1])
