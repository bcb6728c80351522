from __future__ import annotations

import pytest

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.distributions import Quantiles, format_centile, ordinal, z_of_centile

WHO_HC = Quantiles("who-2017.csv", "HC")


def test_tables_hold_eleven_curves_each() -> None:
    for file, keys in (("who-2017.csv", ("AC", "BPD", "EFW", "FL", "HC")), ("who-2017-efw-by-sex.csv", ("F", "M"))):
        for key in keys:
            centiles, _ = Quantiles(file, key)._curves(28)
            assert centiles == pytest.approx((1, 2.5, 5, 10, 25, 50, 75, 90, 95, 97.5, 99))


@pytest.mark.parametrize("centile", [0.5, 99.5])
def test_quantiles_have_no_value_beyond_the_outermost(centile: float) -> None:
    value = WHO_HC.value_at(28, centile)
    assert isinstance(value, Abstained)
    assert "only from 1 to 99" in value.reason


def test_quantiles_define_no_standard_deviation() -> None:
    assert isinstance(WHO_HC.value_at_z(28, 0), Abstained)


def test_z_of_centile() -> None:
    assert z_of_centile(50) == 0
    assert z_of_centile(97) == pytest.approx(1.8808, abs=5e-5)
    assert z_of_centile(3) == pytest.approx(-1.8808, abs=5e-5)


@pytest.mark.parametrize(
    ("centile", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (10, "10th"), (11, "11th"), (12, "12th"), (21, "21st"), (99, "99th"),
     (2.5, "2.5th"), (97.5, "97.5th")],
)  # fmt: skip
def test_ordinals(centile: float, text: str) -> None:
    assert ordinal(centile) == text


@pytest.mark.parametrize(
    ("centile", "text"), [(0.0, "<0.1"), (0.04, "<0.1"), (0.1, "0.1"), (9.96, "10.0"), (99.9, "99.9"), (99.95, ">99.9")]
)
def test_centiles_are_never_printed_as_nought_or_a_hundred(centile: float, text: str) -> None:
    assert format_centile(centile) == text
