"""One age for all exams, or an age for each from a range."""

from __future__ import annotations

import pytest

from edgefetal_calibration.phantom.ages import Ages, parse_ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan
from edgefetal_devices.errors import InputError


def test_a_single_age_is_every_exams() -> None:
    ages = parse_ages("28w3d")
    assert ages == Ages.of(28 + 3 / 7)
    assert {ages.weeks_of(seed, number) for seed in range(3) for number in range(3)} == {28 + 3 / 7}
    assert str(ages) == "28w3d"


def test_a_range_gives_every_exam_a_whole_day_of_its_own() -> None:
    ages = parse_ages("18w0d..36w0d")
    drawn = [ages.weeks_of(1, number) for number in range(400)]
    assert drawn == [ages.weeks_of(1, number) for number in range(400)]
    assert drawn != [ages.weeks_of(2, number) for number in range(400)]
    assert min(drawn) >= 18
    assert max(drawn) <= 36
    assert all(abs(weeks * 7 - round(weeks * 7)) < 1e-9 for weeks in drawn)
    # No part of the range is left out.
    assert all(any(low <= weeks < low + 3 for weeks in drawn) for low in range(18, 36, 3))
    assert str(ages) == "18w0d..36w0d"


def test_both_ends_of_a_range_are_drawn() -> None:
    ages = parse_ages("20w0d..20w1d")
    assert {round(ages.weeks_of(0, number) * 7) for number in range(40)} == {140, 141}


def test_an_exam_does_not_depend_on_how_many_there_are() -> None:
    few, many = (SeriesPlan(Protocol.HEAD, parse_ages("18w0d..36w0d"), exams=n, seed=5) for n in (2, 9))
    assert [few.exam(k) for k in range(2)] == [many.exam(k) for k in range(2)]
    assert len({many.exam(k).weeks for k in range(9)}) > 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("36w0d..18w0d", "write 18w0d..36w0d"),
        ("18w0d..", "18w0d..36w0d"),
        ("..18w0d", "18w0d..36w0d"),
        ("18w0d..20w0d..30w0d", "18w0d..36w0d"),
        ("18..20", "28w3d"),
        ("10w0d..20w0d", "14w0d to 40w0d"),
        ("20w0d..41w0d", "14w0d to 40w0d"),
    ],
)
def test_what_is_no_range_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_ages(text)


def test_a_range_without_a_whole_day_is_refused() -> None:
    with pytest.raises(InputError, match="whole day"):
        Ages(20.02, 20.1)
