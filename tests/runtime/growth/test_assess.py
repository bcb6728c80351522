from __future__ import annotations

import pytest

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.assess import AGE_FROM_SAME_MEASURES, NO_AGE, Row, assess
from edgefetal_runtime.growth.gestation import GestationalAge, parse_age
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure, Sex

THREE = Biometry(hc_mm=265, ac_mm=240, fl_mm=53)
AT_28W3D = parse_age("28w3d")


def find(rows: tuple[Row, ...], measure: Measure, chart: str) -> Row:
    return next(row for row in rows if row.chart.measure is measure and row.chart.name == chart)


def test_a_known_age_wins_and_the_measures_are_size() -> None:
    report = assess(THREE, AT_28W3D, None)
    assert report.age_known
    assert report.age_weeks == AT_28W3D.weeks
    assert report.basis == "given as 28w3d"
    assert find(report.rows, Measure.HC, "INTERGROWTH-21st 2014").z == pytest.approx(0.0685, abs=0.0001)
    assert report.dating[0].value != report.age_weeks


def test_without_a_known_age_the_measures_date_and_no_size_is_read_from_them() -> None:
    report = assess(THREE, None, Sex.MALE)
    assert not report.age_known
    assert report.age_weeks == report.dating[0].value == pytest.approx(28.87, abs=0.005)
    assert report.basis == "the measures, by INTERGROWTH-21st 2016 (HC, FL)"
    assert len(report.rows) == 14
    assert all(row.z is None and row.centile is None for row in report.rows)
    assert {row.note for row in report.rows} == {AGE_FROM_SAME_MEASURES}


def test_a_less_trusted_formula_does_not_step_in_for_one_that_abstains() -> None:
    """A head of 350 mm is beyond INTERGROWTH's 40 weeks and within Hadlock's 42: the age is N/A."""
    report = assess(Biometry(hc_mm=350), None, None)
    assert isinstance(report.age_weeks, Abstained)
    assert "above the formula's range" in report.age_weeks.reason
    assert isinstance(report.dating[1].value, float)
    assert {row.note for row in report.rows} == {NO_AGE}


def test_measures_that_date_nothing() -> None:
    report = assess(Biometry(ofd_mm=93), None, None)
    assert isinstance(report.age_weeks, Abstained)
    assert report.dating == ()
    assert [row.note for row in report.rows] == [NO_AGE]


def test_each_chart_of_weight_gets_the_weight_of_its_own_formula() -> None:
    report = assess(THREE, AT_28W3D, None)
    weights = {w.formula.name: w.value for w in report.weights}
    rows = [row for row in report.rows if row.chart.measure is Measure.EFW]
    assert {row.chart.name: row.value for row in rows} == {
        "INTERGROWTH-21st 2017": weights["INTERGROWTH-21st 2017 (AC, HC)"],
        "INTERGROWTH-21st 2020": weights["Hadlock 1985 (HC, AC, FL)"],
        "Hadlock 1991": weights["Hadlock 1985 (HC, AC, FL)"],
        "WHO 2017": weights["Hadlock 1985 (HC, AC, FL)"],
    }
    assert all(row.note.startswith("weight by ") for row in rows)
    assert "13.27 %" in find(report.rows, Measure.EFW, "Hadlock 1991").note


def test_only_weights_whose_measures_there_are_are_charted() -> None:
    report = assess(Biometry(hc_mm=265, ac_mm=240), AT_28W3D, None)
    assert [row.chart.name for row in report.rows if row.chart.measure is Measure.EFW] == ["INTERGROWTH-21st 2017"]


@pytest.mark.parametrize(
    ("sex", "charts"),
    [(None, set()), (Sex.FEMALE, {"WHO 2017, girls"}), (Sex.MALE, {"WHO 2017, boys"})],
)
def test_sex_adds_its_chart(sex: Sex | None, charts: set[str]) -> None:
    names = {row.chart.name for row in assess(THREE, AT_28W3D, sex).rows}
    assert {name for name in names if ", " in name} == charts
    assert "WHO 2017" in names


def test_the_diameter_is_charted_in_each_charts_convention() -> None:
    report = assess(Biometry(bpd_mm=70, bpd_calipers=Calipers.OUTER_INNER), AT_28W3D, None)
    outer = find(report.rows, Measure.BPD, "INTERGROWTH-21st 2014")
    inner = find(report.rows, Measure.BPD, "Hadlock 1984")
    assert outer.value == pytest.approx(72.468, abs=0.001)
    assert "outer-inner read as 72.5 mm outer-outer (Wong 2018)" in outer.note
    assert inner.value == 70
    assert inner.note == ""


def test_the_diameter_is_not_read_on_a_chart_of_unknown_convention() -> None:
    report = assess(Biometry(bpd_mm=70, bpd_calipers=Calipers.OUTER_INNER), AT_28W3D, None)
    row = find(report.rows, Measure.BPD, "WHO 2017")
    assert (row.value, row.z, row.centile) == (None, None, None)
    assert "calipers" in row.note


def test_outside_a_charts_weeks_the_row_says_so() -> None:
    rows = assess(THREE, GestationalAge(43.0, "test"), None).rows
    assert all(row.centile is None and row.note.startswith("N/A: 43w0d is outside") for row in rows)
    early = find(assess(THREE, GestationalAge(20.0, "test"), None).rows, Measure.EFW, "INTERGROWTH-21st 2017")
    assert early.note == "N/A: 20w0d is outside the chart's 22w0d to 40w0d"


def test_rows_stand_by_measure() -> None:
    order = list(Measure)
    positions = [order.index(row.chart.measure) for row in assess(THREE, AT_28W3D, None).rows]
    assert positions == sorted(positions)


def test_a_weight_that_abstains_is_no_row_with_a_figure() -> None:
    report = assess(Biometry(hc_mm=345, ac_mm=420), GestationalAge(39.0, "test"), None)
    row = find(report.rows, Measure.EFW, "INTERGROWTH-21st 2017")
    assert (row.value, row.centile) == (None, None)
    assert "above an AC of 407.5 mm" in row.note
