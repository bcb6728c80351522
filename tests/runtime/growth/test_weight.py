from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure
from edgefetal_runtime.growth.weight import (
    HADLOCK_AC_FL,
    HADLOCK_BPD_AC_FL,
    HADLOCK_BPD_HC_AC_FL,
    HADLOCK_HC_AC_FL,
    INTERGROWTH_AC_HC,
    WEIGHTS,
    weigh_fetus,
)

if TYPE_CHECKING:
    from edgefetal_runtime.growth.formula import Formula

PLAUSIBLE_MM = {Measure.HC: (40, 400), Measure.BPD: (15, 125), Measure.AC: (45, 450), Measure.FL: (8.3, 90)}
ORDER = (HADLOCK_AC_FL, HADLOCK_BPD_AC_FL, HADLOCK_HC_AC_FL, HADLOCK_BPD_HC_AC_FL, INTERGROWTH_AC_HC)
# BPD, HC, AC, FL in cm, and g by the formulae in that order.
VECTORS = (
    ((4.7, 17.5, 15.0, 3.3), (344.9, 343.8, 339.1, 341.8, 430.4)),
    ((7.0, 26.0, 24.0, 5.3), (1229.6, 1204.2, 1197.1, 1194.8, 1144.7)),
    ((8.5, 31.0, 29.0, 6.5), (2193.8, 2202.7, 2189.7, 2194.6, 2060.6)),
    ((9.3, 33.5, 35.0, 7.3), (3508.2, 3503.2, 3450.8, 3471.6, 3393.1)),
)


@pytest.mark.parametrize(("cm", "grams"), VECTORS)
def test_weights(cm: tuple[float, float, float, float], grams: tuple[float, ...]) -> None:
    b, h, a, f = (10 * value for value in cm)
    biometry = Biometry(hc_mm=h, bpd_mm=b, bpd_calipers=Calipers.OUTER_INNER, ac_mm=a, fl_mm=f)
    for formula, expected in zip(ORDER, grams, strict=True):
        assert formula.estimate(biometry).value == pytest.approx(expected, abs=0.05)


def test_intergrowth_2017_in_its_own_example() -> None:
    """The paper's: AC 26 cm, HC 29 cm, 1499 g."""
    assert INTERGROWTH_AC_HC.estimate(Biometry(ac_mm=260, hc_mm=290)).value == pytest.approx(1498.61, abs=0.005)
    assert math.log(INTERGROWTH_AC_HC.equation(260, 290)) == pytest.approx(7.312292, abs=5e-7)


@pytest.mark.parametrize(
    ("cm", "grams"), [((6, 6, 6), 304.5), ((9, 9, 9), 942.8), ((12, 12, 12), 2550.1), ((6, 9, 12), 2129.7)]
)
def test_hadlock_hc_ac_fl_as_the_who_calculator_has_it(cm: tuple[float, float, float], grams: float) -> None:
    assert HADLOCK_HC_AC_FL.equation(*(10 * value for value in cm)) == pytest.approx(grams, abs=0.05)


@pytest.mark.parametrize(("cm", "grams"), VECTORS)
def test_weights_are_none_of_the_wrong_variants(
    cm: tuple[float, float, float, float], grams: tuple[float, ...]
) -> None:
    """Coefficients of A and F swapped; 0.19 F for 0.1623 F; 0.04242 A for 0.0424 A: each is off beyond the vectors."""
    b, h, a, f = cm
    swapped = 10 ** (1.304 + 0.1938 * a + 0.05281 * f - 0.004 * a * f)
    rounded = 10 ** (1.335 - 0.0034 * a * f + 0.0316 * b + 0.0457 * a + 0.19 * f)
    doubled = 10 ** (1.3596 - 0.00386 * a * f + 0.0064 * h + 0.00061 * b * a + 0.04242 * a + 0.174 * f)
    assert abs(swapped - grams[0]) > 100
    assert abs(rounded - grams[1]) > 50
    assert abs(doubled - grams[3]) > 0.1


def test_a_formula_is_named_by_its_parameters() -> None:
    assert [f.name for f in WEIGHTS] == [
        "Hadlock 1985 (HC, AC, FL)",
        "Hadlock 1985 (BPD, HC, AC, FL)",
        "Hadlock 1985 (BPD, AC, FL)",
        "Hadlock 1985 (AC, FL)",
        "INTERGROWTH-21st 2017 (AC, HC)",
    ]


def test_a_missing_measure_is_named() -> None:
    values = {e.formula.name: e.value for e in weigh_fetus(Biometry(ac_mm=240, hc_mm=260))}
    assert values["INTERGROWTH-21st 2017 (AC, HC)"] == pytest.approx(1144.7, abs=0.05)
    assert values["Hadlock 1985 (BPD, AC, FL)"] == Abstained("N/A: BPD, FL not measured")


def test_hadlock_reads_the_diameter_outer_to_inner() -> None:
    outer = Biometry(bpd_mm=72.5, bpd_calipers=Calipers.OUTER_OUTER, ac_mm=240, fl_mm=53)
    estimate = HADLOCK_BPD_AC_FL.estimate(outer)
    assert estimate.value == pytest.approx(1204.2, abs=0.6)
    assert "(Wong 2018)" in estimate.note


def test_intergrowth_turns_at_an_ac_of_407_mm_and_abstains_beyond() -> None:
    """Above it the published equation gives a larger abdomen a smaller weight."""
    ceiling_mm = INTERGROWTH_AC_HC.ac_ceiling_mm
    assert ceiling_mm == pytest.approx(407.5, abs=0.05)
    assert INTERGROWTH_AC_HC.equation(ceiling_mm - 5, 340) < INTERGROWTH_AC_HC.equation(ceiling_mm, 340)
    assert INTERGROWTH_AC_HC.equation(ceiling_mm + 5, 340) < INTERGROWTH_AC_HC.equation(ceiling_mm, 340)
    value = INTERGROWTH_AC_HC.estimate(Biometry(ac_mm=410, hc_mm=340)).value
    assert isinstance(value, Abstained)
    assert "above an AC of 407.5 mm" in value.reason


@pytest.mark.parametrize("formula", WEIGHTS, ids=lambda f: f.name)
@given(data=st.data())
def test_weight_rises_with_each_measure(formula: Formula, data: st.DataObject) -> None:
    spans = [
        (low, min(high, formula.ac_ceiling_mm if m is Measure.AC else high))
        for m, (low, high) in ((m, PLAUSIBLE_MM[m]) for m in formula.measures)
    ]
    values = [data.draw(st.floats(*span)) for span in spans]
    index = data.draw(st.integers(0, len(values) - 1))
    more = data.draw(st.floats(values[index], spans[index][1]))
    assume(more - values[index] > 1e-3)
    larger = [*values[:index], more, *values[index + 1 :]]
    assert formula.equation(*larger) > formula.equation(*values)
