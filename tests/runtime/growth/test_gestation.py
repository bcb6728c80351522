from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.errors import InputError
from edgefetal_runtime.growth.gestation import (
    GestationalAge,
    age_from_edd,
    age_from_lmp,
    format_weeks,
    parse_age,
    parse_date,
)

EXAM = date(2026, 7, 20)


@pytest.mark.parametrize(
    ("text", "days"),
    [("28w3d", 199), ("28+3", 199), ("28w", 196), (" 14w0d ", 98), ("9+6", 69), ("0w1d", 1), ("45w0d", 315)],
)
def test_an_age_is_read(text: str, days: int) -> None:
    assert parse_age(text).weeks == pytest.approx(days / 7, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("28w9d", "9 days in a week"),
        ("28+7", "7 days in a week"),
        ("50w0d", "outside 0 to 45"),
        ("45w1d", "outside 0 to 45"),
        ("0w0d", "outside 0 to 45"),
        ("-28w3d", "give weeks and days"),
        ("28w-3d", "give weeks and days"),
        ("28.4", "give weeks and days"),
        ("28", "give weeks and days"),
        ("50w", "outside 0 to 45"),
        ("28w3d2h", "give weeks and days"),
        ("28w33d", "give weeks and days"),
        ("٢٨w٣d", "give weeks and days"),
        ("nan", "give weeks and days"),
        ("", "give weeks and days"),
    ],
)
def test_what_is_no_age_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_age(text)


@pytest.mark.parametrize("weeks", [float("nan"), float("inf"), 0.0, -1.0, 45.1])
def test_an_age_of_no_pregnancy_is_refused(weeks: float) -> None:
    with pytest.raises(InputError, match="outside 0 to 45"):
        GestationalAge(weeks, "test")


@given(st.integers(1, 315))
def test_a_printed_age_reads_back(days: int) -> None:
    assert parse_age(format_weeks(days / 7)).weeks == pytest.approx(days / 7, abs=1e-12)


def test_days_carry_over_into_a_week() -> None:
    assert format_weeks(27.99) == "28w0d"
    assert format_weeks(28 + 6 / 7) == "28w6d"


def test_naegele() -> None:
    """1 January 2026 plus 280 days is 8 October 2026; 20 July is day 200."""
    assert age_from_lmp(date(2026, 1, 1), EXAM).weeks == pytest.approx(200 / 7)
    assert age_from_edd(date(2026, 10, 8), EXAM).weeks == pytest.approx(200 / 7)


def test_an_age_says_where_it_came_from() -> None:
    assert age_from_lmp(date(2026, 1, 1), EXAM).origin == "last menstrual period 2026-01-01, examination 2026-07-20"


@given(st.integers(1, 315))
def test_period_and_due_date_agree(days: int) -> None:
    lmp = date.fromordinal(EXAM.toordinal() - days)
    edd = date.fromordinal(lmp.toordinal() + 280)
    assert age_from_lmp(lmp, EXAM).weeks == age_from_edd(edd, EXAM).weeks


@pytest.mark.parametrize(
    ("lmp", "says"),
    [
        (date(2026, 7, 21), "begin 1 days after the examination"),
        (date(2026, 7, 20), "begin 0 days after the examination"),
        (date(2025, 9, 7), "45w1d"),
        (date(2016, 1, 1), "more than 45 weeks"),
    ],
)
def test_impossible_periods_are_refused(lmp: date, says: str) -> None:
    with pytest.raises(InputError, match=says):
        age_from_lmp(lmp, EXAM)


def test_impossible_due_dates_are_refused() -> None:
    with pytest.raises(InputError, match="check both dates"):
        age_from_edd(date(2027, 7, 1), EXAM)
    with pytest.raises(InputError, match="check both dates"):
        age_from_edd(date(2026, 6, 1), EXAM)


def test_a_date_is_read() -> None:
    assert parse_date("2026-03-09") == date(2026, 3, 9)


@pytest.mark.parametrize(
    "text", ["09.03.2026", "2026-3-9", "20260309", "2026-02-30", "2026-W10-1", "yesterday", "", " 2026-03-09"]
)
def test_what_is_no_iso_date_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="year, month and day"):
        parse_date(text)
