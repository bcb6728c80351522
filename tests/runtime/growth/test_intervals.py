from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.charts import find_chart
from edgefetal_runtime.growth.dating import DATING
from edgefetal_runtime.growth.intervals import Interval, centile_interval, estimate_interval
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure
from edgefetal_runtime.growth.weight import HADLOCK_HC_AC_FL, WEIGHTS

if TYPE_CHECKING:
    from edgefetal_runtime.growth.formula import Formula

THREE = Biometry(hc_mm=265, ac_mm=240, fl_mm=53)
MEASURED = {
    Measure.HC: Interval(261, 269),
    Measure.AC: Interval(231, 249),
    Measure.FL: Interval(51.5, 54.5),
}


def dating(name: str) -> Formula:
    return next(f for f in DATING if f.name == name)


def test_one_measure_carries_its_interval_end_by_end() -> None:
    formula = dating("Hadlock 1984 (HC)")
    interval = estimate_interval(formula, THREE, MEASURED)
    assert isinstance(interval, Interval)
    assert interval.lower == pytest.approx(formula.equation(261))
    assert interval.upper == pytest.approx(formula.equation(269))


def test_several_measures_are_taken_to_err_together() -> None:
    interval = estimate_interval(dating("Hadlock 1984 (HC, FL)"), THREE, MEASURED)
    assert isinstance(interval, Interval)
    assert interval.lower == pytest.approx(11.19 + 0.07 * 26.1 * 5.15 + 0.263 * 26.1)
    assert interval.upper == pytest.approx(11.19 + 0.07 * 26.9 * 5.45 + 0.263 * 26.9)


def test_a_scale_error_of_all_measures_stays_inside() -> None:
    """A 2 % scale error moves HC, AC and FL at once; the interval from their ends must hold the true weight."""
    measured = {m: Interval(0.98 * mm, 1.02 * mm) for m, mm in THREE.given().items()}
    interval = estimate_interval(HADLOCK_HC_AC_FL, THREE, measured)
    assert isinstance(interval, Interval)
    for scale in (0.98, 0.99, 1.01, 1.02):
        weight = HADLOCK_HC_AC_FL.equation(scale * 265, scale * 240, scale * 53)
        assert interval.lower - 1e-6 <= weight <= interval.upper + 1e-6


@given(st.floats(0, 1))
def test_no_error_leaves_no_interval_and_more_error_a_wider_one(share: float) -> None:
    formula = dating("INTERGROWTH-21st 2016 (HC, FL)")
    narrow = {m: Interval(THREE.given()[m] - share, THREE.given()[m] + share) for m in formula.measures}
    wide = {m: Interval(i.lower - 1, i.upper + 1) for m, i in narrow.items()}
    inner, outer = estimate_interval(formula, THREE, narrow), estimate_interval(formula, THREE, wide)
    assert isinstance(inner, Interval)
    assert isinstance(outer, Interval)
    assert outer.lower < inner.lower <= formula.equation(265, 53) + 1e-9
    assert outer.upper > inner.upper >= formula.equation(265, 53) - 1e-9


def test_ends_of_a_diameter_are_converted_like_the_diameter() -> None:
    biometry = Biometry(bpd_mm=72.5, bpd_calipers=Calipers.OUTER_OUTER)
    formula = dating("Hadlock 1984 (BPD)")
    interval = estimate_interval(formula, biometry, {Measure.BPD: Interval(71.5, 73.5)})
    assert isinstance(interval, Interval)
    assert interval.lower == pytest.approx(formula.equation(-0.403458 + 0.9714153 * 71.5))


@pytest.mark.parametrize(
    ("biometry", "measured", "reason"),
    [
        (Biometry(hc_mm=265), {}, "HC has no interval"),
        (Biometry(hc_mm=339), {Measure.HC: Interval(330, 355)}, "interval of the measures leaves the formula's range"),
        (Biometry(hc_mm=350), {Measure.HC: Interval(345, 355)}, "above the formula's range"),
        (Biometry(fl_mm=53), {Measure.FL: Interval(52, 54)}, "HC not measured"),
    ],
)
def test_an_interval_that_leaves_the_formula_is_none(
    biometry: Biometry, measured: dict[Measure, Interval], reason: str
) -> None:
    interval = estimate_interval(dating("INTERGROWTH-21st 2016 (HC)"), biometry, measured)
    assert isinstance(interval, Abstained)
    assert reason in interval.reason


@pytest.mark.parametrize("formula", [f for f in WEIGHTS if Measure.BPD not in f.measures], ids=lambda f: f.name)
def test_every_weight_carries(formula: Formula) -> None:
    assert isinstance(estimate_interval(formula, THREE, MEASURED), Interval)


def test_centiles_are_those_of_the_ends() -> None:
    interval = centile_interval(find_chart("INTERGROWTH-21st 2014", Measure.HC), 28.0, Interval(251.4241, 269.2947))
    assert isinstance(interval, Interval)
    assert interval.lower == pytest.approx(15.8655, abs=0.001)
    assert interval.upper == pytest.approx(84.1345, abs=0.001)


def test_centiles_outside_the_chart_are_none() -> None:
    hc = find_chart("WHO 2017", Measure.HC)
    beyond = centile_interval(hc, 28.0, Interval(220, 264))
    assert isinstance(beyond, Abstained)
    assert "below the 1st centile" in beyond.reason
    assert isinstance(centile_interval(hc, 43.0, Interval(330, 340)), Abstained)
