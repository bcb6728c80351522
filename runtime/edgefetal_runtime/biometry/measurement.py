"""What a measurement is: a value with a unit, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Abstained:
    """No value, because; falsy, so that `if result:` reads as it should.

    Args:
        reason: one sentence for the operator, with what to do next where something can be done.
    """

    reason: str

    def __bool__(self) -> bool:
        """Return False: there is no value here."""
        return False


@dataclass(frozen=True)
class Measured:
    """A value with its unit.

    Args:
        value: the figure.
        unit: its unit, `mm` or `1` for a ratio.
    """

    value: float
    unit: str
