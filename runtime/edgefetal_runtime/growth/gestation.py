"""Gestational age in exact weeks, counted from the last menstrual period, and where that figure came from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date

from edgefetal_devices.errors import InputError

# Naegele's rule: a pregnancy is expected to last 280 days from the first day of the last menstrual period.
PREGNANCY_DAYS = 280
DAYS_PER_WEEK = 7
# No pregnancy reaches this age; a date that leads there is a wrong date.
MAX_WEEKS = 45.0
_AGE = re.compile(r"(\d{1,3})(?:w(?:([0-9])d)?|\+([0-9]))", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class GestationalAge:
    """An age that is known before the fetus is measured.

    Args:
        weeks: exact weeks since the first day of the last menstrual period.
        origin: where the figure came from, in words for the report.

    Raises:
        InputError: the age is not positive, or no pregnancy lasts as long.
    """

    weeks: float
    origin: str

    def __post_init__(self) -> None:
        """Refuse an age that cannot be one."""
        if not math.isfinite(self.weeks) or not 0 < self.weeks <= MAX_WEEKS:
            message = (
                f"A gestational age of {self.weeks:.4g} weeks ({self.origin}) is outside 0 to {MAX_WEEKS:g}; "
                "check the weeks or the date."
            )
            raise InputError(message)


def format_weeks(weeks: float) -> str:
    """Write exact weeks as weeks and whole days, such as `28w3d`, rounded to the nearest day."""
    whole, days = divmod(round(weeks * DAYS_PER_WEEK), DAYS_PER_WEEK)
    return f"{whole}w{days}d"


def parse_age(text: str) -> GestationalAge:
    """Read an age such as `28w3d`, `28+3` or `28w`.

    `28.4` is refused: some write it for four days, some for four tenths of a week.

    Raises:
        InputError: the text has another form, or more than six days, or is an age of no pregnancy.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        message = f"{text!r} is no gestational age; give weeks and days as 28w3d or 28+3."
        raise InputError(message)
    days = int(match[2] or match[3] or 0)
    if days >= DAYS_PER_WEEK:
        message = f"{text!r} has {days} days in a week; give 0 to 6 days, such as 28w3d."
        raise InputError(message)
    return GestationalAge(int(match[1]) + days / DAYS_PER_WEEK, f"given as {text.strip()}")


def parse_date(text: str) -> date:
    """Read a date such as `2026-03-09`.

    Raises:
        InputError: the text is not of that form, or the calendar has no such day.
    """
    try:
        return date.fromisoformat(text if _ISO_DATE.fullmatch(text) else "")
    except ValueError as error:
        message = f"{text!r} is no date; give year, month and day as 2026-03-09."
        raise InputError(message) from error


def age_from_lmp(lmp: date, exam: date) -> GestationalAge:
    """Age at the examination from the first day of the last menstrual period.

    Raises:
        InputError: the period began on or after the day of the examination, or more than `MAX_WEEKS` before it.
    """
    return _age_in_days((exam - lmp).days, f"last menstrual period {lmp}, examination {exam}")


def age_from_edd(edd: date, exam: date) -> GestationalAge:
    """Age at the examination from the expected date of delivery, which is 280 days after the last period began.

    Raises:
        InputError: the pregnancy would not have begun by the examination, or would be older than `MAX_WEEKS`.
    """
    return _age_in_days(PREGNANCY_DAYS - (edd - exam).days, f"expected delivery {edd}, examination {exam}")


def _age_in_days(days: int, origin: str) -> GestationalAge:
    if days <= 0:
        message = f"The pregnancy would begin {-days} days after the examination ({origin}); check both dates."
        raise InputError(message)
    if days > MAX_WEEKS * DAYS_PER_WEEK:
        message = (
            f"The pregnancy would have lasted {format_weeks(days / DAYS_PER_WEEK)} ({origin}), more than "
            f"{MAX_WEEKS:g} weeks; check both dates."
        )
        raise InputError(message)
    return GestationalAge(days / DAYS_PER_WEEK, origin)
