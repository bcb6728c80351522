"""What a measurement is: a value with a unit and, where one is known, an interval; or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Abstained:
    """No value, because; falsy, so that `if result:` reads as it should.

    Args:
        reason: one sentence for the operator, with what to do next where something can be done.
    """

    reason: str

    def __bool__(self) -> Literal[False]:
        """Return False: there is no value here."""
        return False


@dataclass(frozen=True)
class Measured:
    """A value with its unit.

    Args:
        value: the figure.
        unit: its unit, `mm`, `weeks`, `g`, or `1` for a ratio.
        interval: lower and upper bound, or None where nothing says how wide it is.
        no_interval: why there is none, in words for the record, which change nothing of the value; empty where there is
            one.
    """

    value: float
    unit: str
    interval: tuple[float, float] | None = None
    no_interval: str = field(default="", compare=False)


@dataclass(frozen=True)
class Quantity:
    """What is measured, and how.

    Args:
        name: short name, as in `exam.json`.
        unit: unit of its values.
        method: definition of the calipers and of the computation, for the record.
        least: values below are not of a fetus; the scale or the outline is wrong.
        most: values above are not either.
    """

    name: str
    unit: str
    method: str
    least: float
    most: float

    def of(self, value: float) -> Measured | Abstained:
        """Return the value as a measurement, or refuse one that no fetus has."""
        # Written so that a value that is no number is refused too.
        if not self.least <= value <= self.most:
            unit = "" if self.unit == "1" else f" {self.unit}"
            advice = "find a clearer plane" if self.unit == "1" else "check the pixel size"
            return Abstained(
                f"{self.name} would be {value:.4g}{unit}, outside {self.least:g} to {self.most:g}; {advice}"
            )
        return Measured(value, self.unit)
