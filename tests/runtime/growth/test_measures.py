from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.errors import InputError
from edgefetal_runtime.growth.charts import CHARTS
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure, convert_bpd

FIELDS = {
    Measure.HC: "hc_mm",
    Measure.BPD: "bpd_mm",
    Measure.OFD: "ofd_mm",
    Measure.AC: "ac_mm",
    Measure.FL: "fl_mm",
}


def one(measure: Measure, value_mm: float) -> Biometry:
    calipers = {"bpd_calipers": Calipers.OUTER_OUTER} if measure is Measure.BPD else {}
    return Biometry(**{FIELDS[measure]: value_mm}, **calipers)  # type: ignore[arg-type]


@pytest.mark.parametrize("measure", FIELDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.0, -50.0])
def test_a_figure_that_is_no_length_is_refused(measure: Measure, value: float) -> None:
    with pytest.raises(InputError, match=rf"{measure.value} is .*positive number of mm"):
        one(measure, value)


@pytest.mark.parametrize("chart", [c for c in CHARTS if c.measure is not Measure.EFW], ids=lambda c: c.name)
def test_every_fetus_of_a_chart_passes_and_its_centimetres_and_tenths_do_not(chart: object) -> None:
    """From the third to the ninety-seventh centile, from 14 weeks to the chart's end."""
    for weeks in (14.0, 20.0, 28.0, 36.0, 40.0):
        for centile in (3.0, 50.0, 97.0):
            value_mm = chart.value_at(weeks, centile)  # type: ignore[attr-defined]
            measure: Measure = chart.measure  # type: ignore[attr-defined]
            assert one(measure, value_mm).given() == {measure: value_mm}
            with pytest.raises(InputError, match="in mm and not in cm"):
                one(measure, value_mm / 10)


@pytest.mark.parametrize(
    ("measure", "ten_times_mm"),
    [(Measure.HC, 979), (Measure.BPD, 296), (Measure.OFD, 338), (Measure.AC, 806), (Measure.FL, 131)],
)
def test_tenths_of_a_millimetre_are_refused(measure: Measure, ten_times_mm: float) -> None:
    """The median at 14 weeks, ten times too large."""
    with pytest.raises(InputError, match="check the figure"):
        one(measure, ten_times_mm)


def test_no_measure_is_refused() -> None:
    with pytest.raises(InputError, match="give at least one of HC"):
        Biometry()


def test_a_diameter_without_calipers_is_refused() -> None:
    with pytest.raises(InputError, match="outer-outer or outer-inner"):
        Biometry(bpd_mm=70)
    with pytest.raises(InputError, match="go together"):
        Biometry(hc_mm=265, bpd_calipers=Calipers.OUTER_INNER)


def test_wong_2018() -> None:
    assert convert_bpd(70, Calipers.OUTER_INNER, Calipers.OUTER_OUTER) == pytest.approx(72.468194, abs=1e-6)
    assert convert_bpd(72.468194, Calipers.OUTER_OUTER, Calipers.OUTER_INNER) == pytest.approx(69.993254, abs=1e-6)
    assert convert_bpd(70, Calipers.OUTER_INNER, Calipers.OUTER_INNER) == 70


@given(st.floats(15, 125), st.permutations(list(Calipers)))
def test_two_regressions_nearly_undo_each_other(bpd_mm: float, calipers: list[Calipers]) -> None:
    first, second = calipers
    there = convert_bpd(bpd_mm, first, second)
    assert convert_bpd(there, second, first) == pytest.approx(bpd_mm, abs=0.12)


@given(st.floats(20, 125))
def test_outer_outer_is_the_larger(bpd_mm: float) -> None:
    assert convert_bpd(bpd_mm, Calipers.OUTER_INNER, Calipers.OUTER_OUTER) > bpd_mm
    assert convert_bpd(bpd_mm, Calipers.OUTER_OUTER, Calipers.OUTER_INNER) < bpd_mm


def test_a_conversion_is_always_stated() -> None:
    biometry = Biometry(bpd_mm=70, bpd_calipers=Calipers.OUTER_INNER)
    assert biometry.conversion_note(Calipers.OUTER_OUTER) == (
        "BPD 70.0 mm outer-inner read as 72.5 mm outer-outer (Wong 2018)"
    )
    assert biometry.conversion_note(Calipers.OUTER_INNER) == ""
    assert Biometry(hc_mm=265).conversion_note(Calipers.OUTER_OUTER) == ""
