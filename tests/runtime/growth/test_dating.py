from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.dating import DATING, date_fetus, hadlock_hc_two_sd_weeks
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure

if TYPE_CHECKING:
    from edgefetal_runtime.growth.formula import Formula

B, H, A, F = Measure.BPD, Measure.HC, Measure.AC, Measure.FL
PLAUSIBLE_MM = {H: (40, 400), B: (15, 125), A: (45, 450), F: (8.3, 90)}


def formula(author: str, *measures: Measure) -> Formula:
    return next(f for f in DATING if f.author == author and f.measures == measures)


def fetus(b: float, h: float, a: float, f: float) -> Biometry:
    """Four measures in cm, the BPD outer to inner."""
    return Biometry(hc_mm=10 * h, bpd_mm=10 * b, bpd_calipers=Calipers.OUTER_INNER, ac_mm=10 * a, fl_mm=10 * f)


# BPD, HC, AC, FL in cm, and the weeks by BPD, HC, AC, FL and all four.
HADLOCK = (
    ((4.7, 17.5, 15.0, 3.3), (20.208, 20.018, 20.245, 20.319, 19.984)),
    ((7.0, 26.0, 24.0, 5.3), (28.126, 28.273, 28.286, 28.163, 27.840)),
    ((8.5, 31.0, 29.0, 6.5), (34.246, 34.637, 33.005, 33.523, 33.507)),
    ((9.3, 33.5, 35.0, 7.3), (37.818, 38.329, 38.905, 37.367, 37.634)),
)


@pytest.mark.parametrize(("cm", "weeks"), HADLOCK)
def test_hadlock_1984(cm: tuple[float, float, float, float], weeks: tuple[float, ...]) -> None:
    biometry = fetus(*cm)
    combinations = ((B,), (H,), (A,), (F,), (B, H, A, F))
    for measures, expected in zip(combinations, weeks, strict=True):
        assert formula("Hadlock 1984", *measures).estimate(biometry).value == pytest.approx(expected, abs=0.00051)


# Each equation of the paper written out once more, independently of the code, at 7.0, 26.0, 24.0 and 5.3 cm.
COMBINATIONS = (
    ((B, H), 10.32 + 0.009 * 676 + 1.32 * 7 + 0.00012 * 17576),
    ((B, A), 9.57 + 0.524 * 24 + 0.122 * 49),
    ((B, F), 10.5 + 0.197 * 37.1 + 0.95 * 5.3 + 0.73 * 7),
    ((H, A), 10.31 + 0.012 * 676 + 0.385 * 24),
    ((H, F), 11.19 + 0.07 * 137.8 + 0.263 * 26),
    ((A, F), 10.47 + 0.442 * 24 + 0.314 * 28.09 - 0.0121 * 148.877),
    ((B, H, A), 10.58 + 0.005 * 676 + 0.3635 * 24 + 0.02864 * 168),
    ((B, H, F), 11.38 + 0.07 * 137.8 + 0.98 * 7),
    ((B, A, F), 10.61 + 0.175 * 37.1 + 0.297 * 24 + 0.71 * 5.3),
    ((H, A, F), 10.33 + 0.031 * 137.8 + 0.361 * 26 + 0.0298 * 127.2),
    ((B, H, A, F), 10.85 + 0.06 * 137.8 + 0.67 * 7 + 0.168 * 24),
)


@pytest.mark.parametrize(("measures", "weeks"), COMBINATIONS)
def test_hadlock_combinations(measures: tuple[Measure, ...], weeks: float) -> None:
    value = formula("Hadlock 1984", *measures).estimate(fetus(7.0, 26.0, 24.0, 5.3)).value
    assert value == pytest.approx(weeks, abs=1e-9)
    assert value == pytest.approx(28, abs=0.6)


def test_hadlock_has_fifteen_combinations() -> None:
    assert sum(f.author == "Hadlock 1984" for f in DATING) == 15
    assert len({f.name for f in DATING}) == len(DATING) == 17


@pytest.mark.parametrize(("hc_cm", "weeks"), [(17.5, 20.018), (26.0, 28.273), (31.0, 34.637), (33.5, 38.329)])
def test_hadlock_hc_is_none_of_the_wrong_polynomials(hc_cm: float, weeks: float) -> None:
    value = formula("Hadlock 1984", H).estimate(Biometry(hc_mm=10 * hc_cm)).value
    assert value == pytest.approx(weeks, abs=0.0005)
    four_terms = 8.96 + 0.540 * hc_cm - 0.0040 * hc_cm**2 + 0.000399 * hc_cm**3
    squared = 8.96 + 0.540 * hc_cm + 0.0003 * hc_cm**2
    assert abs(four_terms - weeks) > 0.1
    assert abs(squared - weeks) > 1


def test_intergrowth_2016_in_its_own_examples() -> None:
    """The paper's: HC 250 mm, 189.8 days; with FL 55 mm, 200.5 days."""
    alone = formula("INTERGROWTH-21st 2016", H).estimate(Biometry(hc_mm=250)).value
    pair = formula("INTERGROWTH-21st 2016", H, F).estimate(Biometry(hc_mm=250, fl_mm=55)).value
    assert isinstance(alone, float)
    assert isinstance(pair, float)
    assert 7 * alone == pytest.approx(189.803, abs=0.0005)
    assert 7 * pair == pytest.approx(200.523, abs=0.0005)


def test_intergrowth_is_not_the_mistyped_coefficient() -> None:
    """0.03242 for 0.03243 moves the example by 0.06 days, which its printed digit does not show."""
    mistyped_days = math.exp(0.03242 * math.log(250) ** 2 + 0.001644 * 55 * math.log(250) + 3.813)
    pair = formula("INTERGROWTH-21st 2016", H, F).estimate(Biometry(hc_mm=250, fl_mm=55)).value
    assert isinstance(pair, float)
    assert 7 * pair - mistyped_days == pytest.approx(0.061, abs=0.001)


@pytest.mark.parametrize(
    ("author", "measures", "biometry", "reason"),
    [
        ("Hadlock 1984", (H,), Biometry(hc_mm=80), "below the formula's range of 14w0d to 42w0d"),
        ("Hadlock 1984", (H,), Biometry(hc_mm=380), "above the formula's range of 14w0d to 42w0d"),
        ("INTERGROWTH-21st 2016", (H,), Biometry(hc_mm=80), "below the formula's range of 14w0d to 40w0d"),
        ("INTERGROWTH-21st 2016", (H,), Biometry(hc_mm=350), "above the formula's range of 14w0d to 40w0d"),
        ("Hadlock 1984", (H, F), Biometry(hc_mm=265), "FL not measured"),
    ],
)
def test_outside_its_range_a_formula_abstains(
    author: str, measures: tuple[Measure, ...], biometry: Biometry, reason: str
) -> None:
    value = formula(author, *measures).estimate(biometry).value
    assert isinstance(value, Abstained)
    assert value.reason.startswith("N/A: ")
    assert reason in value.reason


def test_a_diameter_is_converted_before_use_and_that_is_said() -> None:
    inner = Biometry(bpd_mm=70, bpd_calipers=Calipers.OUTER_INNER)
    outer = Biometry(bpd_mm=72.5, bpd_calipers=Calipers.OUTER_OUTER)
    hadlock = formula("Hadlock 1984", B)
    assert hadlock.estimate(inner).value == pytest.approx(28.126, abs=0.0005)
    assert hadlock.estimate(inner).note == ""
    assert hadlock.estimate(outer).value == pytest.approx(28.126, abs=0.02)
    assert hadlock.estimate(outer).note == "BPD 72.5 mm outer-outer read as 70.0 mm outer-inner (Wong 2018)"


@pytest.mark.parametrize(
    ("hc_mm", "weeks"),
    [
        (67, None),
        (68, 1.19),
        (144, 1.19),
        (151, 1.48),
        (219, 1.48),
        (224, 2.06),
        (280, 2.06),
        (284, 2.98),
        (325, 2.98),
        (328, 3.20),
        (360, 3.20),
        (361, None),
    ],
)
def test_the_spread_of_hadlocks_age_from_hc(hc_mm: float, weeks: float | None) -> None:
    assert hadlock_hc_two_sd_weeks(hc_mm) == weeks


def test_between_two_bands_the_wider_spread_holds() -> None:
    assert hadlock_hc_two_sd_weeks(147) == 1.48


def test_the_known_spread_stands_beside_the_age() -> None:
    notes = {e.formula.name: e.note for e in date_fetus(Biometry(hc_mm=265, fl_mm=53))}
    assert "2.06 weeks" in notes["Hadlock 1984 (HC)"]
    assert notes["Hadlock 1984 (FL)"] == ""


def test_only_formulae_whose_measures_there_are_date() -> None:
    assert [e.formula.name for e in date_fetus(Biometry(hc_mm=265))] == [
        "INTERGROWTH-21st 2016 (HC)",
        "Hadlock 1984 (HC)",
    ]
    assert date_fetus(Biometry(ofd_mm=90)) == ()
    assert len(date_fetus(fetus(7.0, 26.0, 24.0, 5.3))) == 17


@pytest.mark.parametrize("dating", DATING, ids=lambda f: f.name)
@given(data=st.data())
def test_age_rises_with_each_measure(dating: Formula, data: st.DataObject) -> None:
    """Over the whole plausible span of every measure, so no formula turns inside its range."""
    values = [data.draw(st.floats(*PLAUSIBLE_MM[m])) for m in dating.measures]
    index = data.draw(st.integers(0, len(values) - 1))
    more = data.draw(st.floats(values[index], PLAUSIBLE_MM[dating.measures[index]][1]))
    assume(more - values[index] > 1e-6)
    larger = [*values[:index], more, *values[index + 1 :]]
    assert dating.equation(*larger) > dating.equation(*values)
