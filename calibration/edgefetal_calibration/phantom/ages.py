"""How old the fetuses of a series are: one age for all, or an age for each exam from a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefetal_calibration.phantom.fetus import size_for_age
from edgefetal_devices.errors import InputError
from edgefetal_runtime.growth.gestation import DAYS_PER_WEEK, format_weeks, parse_age

_BETWEEN: Final = ".."
# Keeps the draw of the age apart from the other draws of an exam.
_STREAM: Final = 13


@dataclass(frozen=True)
class Ages:
    """Gestational ages from the youngest to the oldest, in exact weeks, both included.

    Args:
        low_weeks: the youngest.
        high_weeks: the oldest; the same for a series of one age.

    Raises:
        InputError: an age has no chart, the range runs backwards, or no whole day lies within it.
    """

    low_weeks: float
    high_weeks: float

    def __post_init__(self) -> None:
        """Refuse a range that no fetus can be drawn from."""
        for weeks in (self.low_weeks, self.high_weeks):
            size_for_age(weeks)
        low, high = format_weeks(self.low_weeks), format_weeks(self.high_weeks)
        if self.low_weeks > self.high_weeks:
            raise InputError(f"The range {low}..{high} ends before it begins; write {high}..{low}.")
        first, last = self._days
        if not self._single and first > last:
            raise InputError(f"No whole day lies between {low} and {high}; give one age, such as {low}.")

    @classmethod
    def of(cls, weeks: float) -> Ages:
        """Return one age for all exams."""
        return cls(weeks, weeks)

    @property
    def _single(self) -> bool:
        return self.low_weeks == self.high_weeks

    @property
    def _days(self) -> tuple[int, int]:
        """The first and the last whole day of the range."""
        # Weeks of whole days may lie a rounding error beside them.
        room = 1e-6
        return math.ceil(self.low_weeks * DAYS_PER_WEEK - room), math.floor(self.high_weeks * DAYS_PER_WEEK + room)

    def weeks_of(self, seed: int, number: int) -> float:
        """Return the age of one exam: a whole day of the range, each as likely, or the only age as it was given.

        Args:
            seed: of the series, 0 or more.
            number: of the exam, from 0.
        """
        if self._single:
            return self.low_weeks
        first, last = self._days
        return int(np.random.default_rng((seed, number, _STREAM)).integers(first, last + 1)) / DAYS_PER_WEEK

    def __str__(self) -> str:
        """Write the ages as `parse_ages` reads them."""
        low = format_weeks(self.low_weeks)
        return low if self._single else f"{low}{_BETWEEN}{format_weeks(self.high_weeks)}"


def parse_ages(text: str) -> Ages:
    """Read one age such as `28w0d`, or a range such as `18w0d..36w0d`.

    Raises:
        InputError: the text has another form, or the ages are none that can be drawn.
    """
    parts = text.split(_BETWEEN)
    if len(parts) > 2 or not all(part.strip() for part in parts):  # noqa: PLR2004 - a range has two ends
        raise InputError(
            f"{text!r} is no range of ages; write one age, 28w0d, or the youngest and the oldest, 18w0d..36w0d."
        )
    ages = [parse_age(part).weeks for part in parts]
    return Ages(ages[0], ages[-1])
