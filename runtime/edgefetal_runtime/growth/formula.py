"""A published formula: what it reads, what it yields, and where it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.gestation import format_weeks
from edgefetal_runtime.growth.measures import Calipers, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefetal_runtime.growth.measures import Biometry


@dataclass(frozen=True)
class Formula:
    """A regression from measures to a gestational age or a weight.

    Args:
        author: first author or project, and year.
        measures: what it reads, in the order of the equation's arguments.
        equation: from the measures in mm to the result in `unit`.
        unit: `weeks` or `g`.
        citation: where it was published.
        lowest: smallest result that the published data support.
        highest: largest such result.
        ac_ceiling_mm: abdominal circumference above which the equation falls as the abdomen grows.
        calipers: convention of the biparietal diameter, where it reads one.
    """

    author: str
    measures: tuple[Measure, ...]
    equation: Callable[..., float]
    unit: str
    citation: str
    lowest: float = 0.0
    highest: float = math.inf
    ac_ceiling_mm: float = math.inf
    calipers: Calipers | None = None

    @property
    def name(self) -> str:
        """Author, year and parameters: numerals such as `Hadlock IV` differ between sources."""
        return f"{self.author} ({', '.join(m.value for m in self.measures)})"

    def estimate(self, biometry: Biometry) -> Estimate:
        """Apply the formula to a fetus; the value is `Abstained` where it does not hold."""
        note = biometry.conversion_note(self.calipers) if Measure.BPD in self.measures else ""
        return Estimate(self, self.value_of(biometry, biometry.given()), note)

    def _range(self) -> str:
        """Write the range of results that the published data support."""
        if self.unit == "g":
            return f"{self.lowest:.0f} g and more"
        return f"{format_weeks(self.lowest)} to {format_weeks(self.highest)}"

    def value_of(self, biometry: Biometry, values_mm: Mapping[Measure, float]) -> float | Abstained:
        """Apply the formula to figures taken as `biometry` was, such as the ends of its intervals.

        Args:
            biometry: the fetus, for its caliper convention.
            values_mm: the figures in mm.
        """
        missing = [m.value for m in self.measures if m not in values_mm]
        if missing:
            return Abstained(f"N/A: {', '.join(missing)} not measured")
        if values_mm.get(Measure.AC, 0.0) > self.ac_ceiling_mm and Measure.AC in self.measures:
            return Abstained(
                f"N/A: above an AC of {self.ac_ceiling_mm:.1f} mm the formula's weight falls as the abdomen grows"
            )
        value = self.equation(*(biometry.as_read_by(m, values_mm[m], self.calipers) for m in self.measures))
        if not self.lowest <= value <= self.highest:
            side = "below" if value < self.lowest else "above"
            return Abstained(f"N/A: {side} the formula's range of {self._range()}")
        return value


@dataclass(frozen=True)
class Estimate:
    """What a formula says about a fetus.

    Args:
        formula: the formula.
        value: the result in the formula's unit, or why there is none.
        note: what was done to the measures on the way, and how far the formula itself is known to err.
    """

    formula: Formula
    value: float | Abstained
    note: str
