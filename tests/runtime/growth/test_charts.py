from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.charts import CHARTS, GrowthChart, find_chart
from edgefetal_runtime.growth.distributions import LogLms, Normal, Quantiles, Reading
from edgefetal_runtime.growth.measures import Calipers, Measure, Sex
from edgefetal_runtime.growth.weight import HADLOCK_HC_AC_FL, INTERGROWTH_AC_HC

HC, BPD, OFD, AC, FL, EFW = Measure.HC, Measure.BPD, Measure.OFD, Measure.AC, Measure.FL, Measure.EFW
LANCET = "INTERGROWTH-21st 2014"


def names(chart: GrowthChart) -> str:
    return f"{chart.name} {chart.measure.value}"


def reading(chart: GrowthChart, weeks: float, value: float) -> Reading:
    result = chart.read(weeks, value)
    assert isinstance(result, Reading)
    return result


def normal(chart: GrowthChart) -> Normal:
    assert isinstance(chart.distribution, Normal)
    return chart.distribution


# Mean and SD in mm.
INTERGROWTH = (
    (20, {HC: (172.4796, 7.4399), BPD: (48.4461, 2.2984), AC: (147.7248, 7.6282), FL: (31.2918, 1.7758),
          OFD: (60.6899, 2.7773)}),
    (28, {HC: (260.3594, 8.9353), BPD: (73.4898, 2.9465), AC: (233.3032, 11.2954), FL: (51.2776, 2.1250)}),
    (36, {HC: (319.3995, 10.7610), BPD: (91.2388, 3.4634), AC: (312.8405, 17.0297), FL: (66.3975, 2.7230)}),
)  # fmt: skip


@pytest.mark.parametrize(("weeks", "expected"), INTERGROWTH)
def test_intergrowth_2014_mean_and_sd(weeks: float, expected: dict[Measure, tuple[float, float]]) -> None:
    for measure, (mean, sd) in expected.items():
        curve = normal(find_chart(LANCET, measure))
        assert curve.mean(weeks) == pytest.approx(mean, abs=5.1e-5)
        assert curve.sd(weeks) == pytest.approx(sd, abs=5.1e-5)


# Week, then the centiles 3, 50 and 97 in mm, as another implementation's tests have them, which allow 0.03 mm.
CHECKPOINTS = (
    (BPD, 14, (26.34, 29.61, 32.89)),
    (BPD, 40, (87.52, 94.89, 102.26)),
    (AC, 14, (72.85, 80.61, 88.38)),
    (AC, 40, (307.66, 349.80, 391.95)),
    (FL, 14, (10.26, 13.11, 15.96)),
    (FL, 40, (66.09, 72.13, 78.17)),
    (HC, 14, (87.38, 97.88, 108.37)),
    (HC, 40, (309.64, 333.94, 358.25)),
    (OFD, 14, (30.12, 33.76, 37.40)),
    (OFD, 40, (104.12, 115.77, 127.42)),
)


@pytest.mark.parametrize(("measure", "weeks", "expected"), CHECKPOINTS)
def test_intergrowth_2014_centiles(measure: Measure, weeks: float, expected: tuple[float, ...]) -> None:
    chart = find_chart(LANCET, measure)
    for centile, value in zip((3, 50, 97), expected, strict=True):
        assert chart.value_at(weeks, centile) == pytest.approx(value, abs=0.03)
        assert reading(chart, weeks, value).centile == pytest.approx(centile, abs=0.3)


def test_intergrowth_bpd_is_not_the_mistyped_constant() -> None:
    """0.101252 for 0.101242 is a relative 1e-5 of the SD; the SD of the paper's constant is printed to four places."""
    sd = normal(find_chart(LANCET, BPD)).sd(40.0)
    lg = math.log(40)
    mistyped = math.exp(0.101252 + 64000 * (0.00150557 - 0.000771535 * lg + 0.0000999638 * lg**2))
    assert mistyped / sd - 1 == pytest.approx(1e-5, rel=0.01)


# Week, then the centiles 3, 10, 50, 90 and 97 in g, as published.
INTERGROWTH_2017 = (
    (22, (463, 481, 525, 578, 607)),
    (28, (892, 951, 1097, 1276, 1375)),
    (34, (1641, 1795, 2162, 2583, 2800)),
    (40, (2574, 2818, 3338, 3858, 4101)),
)
INTERGROWTH_2020 = (
    (20, (271, 284, 318, 359, 381)),
    (28, (925, 982, 1119, 1279, 1364)),
    (40, (2667, 2888, 3409, 3999, 4302)),
)
WEIGHT_ROWS = tuple(
    (name, weeks, grams)
    for name, rows in (("INTERGROWTH-21st 2017", INTERGROWTH_2017), ("INTERGROWTH-21st 2020", INTERGROWTH_2020))
    for weeks, grams in rows
)


@pytest.mark.parametrize(("name", "weeks", "grams"), WEIGHT_ROWS)
def test_weight_tables(name: str, weeks: float, grams: tuple[float, ...]) -> None:
    chart = find_chart(name, EFW)
    for centile, value in zip((3, 10, 50, 90, 97), grams, strict=True):
        assert chart.value_at(weeks, centile) == pytest.approx(value, abs=0.52)


HADLOCK_1991_TABLE = ((28, (908, 1004, 1210, 1416, 1513)), (40, (2714, 3004, 3619, 4234, 4524)))


@pytest.mark.parametrize(("weeks", "grams"), HADLOCK_1991_TABLE)
def test_hadlock_1991_table(weeks: float, grams: tuple[float, ...]) -> None:
    chart = find_chart("Hadlock 1991", EFW)
    for centile, value in zip((3, 10, 50, 90, 97), grams, strict=True):
        assert chart.value_at(weeks, centile) == pytest.approx(value, abs=2)


@pytest.mark.parametrize(
    ("weeks", "grams"), [(20, 331.0), (24, 669.8), (28, 1210.3), (32, 1952.8), (36, 2813.4), (40, 3619.2)]
)
def test_hadlock_1991_means(weeks: float, grams: float) -> None:
    assert find_chart("Hadlock 1991", EFW).value_at(weeks, 50) == pytest.approx(grams, abs=0.051)


def test_hadlock_1991_is_none_of_the_other_spreads() -> None:
    """The table's tenth centile at 40 weeks is 3004 g; 12.7 % gives 3030 g, and 0.12 on the logarithm 3103 g."""
    tenth = find_chart("Hadlock 1991", EFW).value_at(40, 10)
    mean = find_chart("Hadlock 1991", EFW).value_at(40, 50)
    assert isinstance(mean, float)
    assert tenth == pytest.approx(3004, abs=1)
    assert mean * (1 - 1.2815516 * 0.127) == pytest.approx(3030, abs=1)
    assert mean * math.exp(-1.2815516 * 0.12) == pytest.approx(3103, abs=1)


@pytest.mark.parametrize(
    ("measure", "mean_mm", "sd_mm"), [(HC, 266.06, 10), (BPD, 70.61, 3), (AC, 239.56, 13.4), (FL, 53.80, 3)]
)
def test_hadlock_1984_at_28_weeks(measure: Measure, mean_mm: float, sd_mm: float) -> None:
    """From the paper's equations in cm, worked by hand."""
    curve = normal(find_chart("Hadlock 1984", measure))
    assert curve.mean(28) == pytest.approx(mean_mm, abs=0.011)
    assert curve.sd(28) == pytest.approx(sd_mm)


def test_hadlock_1984_hc_is_not_the_other_variant() -> None:
    """1.562 for 1.56, and an SD of 0.956 cm for 1.00, circulate together with garbled BPD and AC equations."""
    curve = normal(find_chart("Hadlock 1984", HC))
    other_mm = 10 * (-11.48 + 1.562 * 28 - 0.0002548 * 28**3)
    assert other_mm - curve.mean(28) == pytest.approx(0.56, abs=0.001)
    assert curve.sd(28) == 10.0


# Value, then week and centile, from the calculator at srhr.org.
WHO = (
    ("WHO 2017", AC, 90, 14, 91.5),
    ("WHO 2017", AC, 90, 15, 39.9),
    ("WHO 2017", AC, 90, 16, 4.0),
    ("WHO 2017", BPD, 92, 35, 91.6),
    ("WHO 2017", BPD, 92, 36, 80.1),
    ("WHO 2017", BPD, 92, 37, 64.9),
    ("WHO 2017", BPD, 81, 30, 90.0),
    ("WHO 2017", EFW, 100, 14, 80.4),
    ("WHO 2017, boys", EFW, 100, 14, 77.0),
    ("WHO 2017, girls", EFW, 100, 14, 85.1),
    ("WHO 2017", EFW, 340, 20, 59.8),
    ("WHO 2017, boys", EFW, 340, 20, 53.0),
    ("WHO 2017, girls", EFW, 340, 20, 68.5),
    ("WHO 2017", EFW, 3600, 40, 48.5),
    ("WHO 2017, boys", EFW, 3600, 40, 46.0),
    ("WHO 2017, girls", EFW, 3600, 40, 53.1),
)


@pytest.mark.parametrize(("name", "measure", "value", "weeks", "centile"), WHO)
def test_who_2017(name: str, measure: Measure, value: float, weeks: float, centile: float) -> None:
    result = reading(find_chart(name, measure), weeks, value)
    assert result.centile == pytest.approx(centile, abs=0.0501)
    assert result.z is None
    assert result.note == ""


@pytest.mark.parametrize(
    ("measure", "medians"),
    [
        (HC, (173.4, 263.6, 320.8)),
        (AC, (149.6, 239.9, 317.2)),
        (FL, (32.2, 52.2, 68.8)),
        (BPD, (46.6, 71.5, 88.7)),
        (EFW, (330, 1189, 2745)),
    ],
)
def test_who_2017_medians(measure: Measure, medians: tuple[float, ...]) -> None:
    half_digit = 0.5 if measure is EFW else 0.051
    for weeks, median in zip((20, 28, 36), medians, strict=True):
        assert find_chart("WHO 2017", measure).value_at(weeks, 50) == pytest.approx(median, abs=half_digit)


def test_who_centiles_are_linear_in_the_value_and_not_in_its_logarithm() -> None:
    """AC of 90 mm at 14 weeks: 91.5 by the value, 91.6 by the logarithm; the calculator says 91.5."""
    chart = find_chart("WHO 2017", AC)
    low, high = chart.value_at(14, 90), chart.value_at(14, 95)
    assert isinstance(low, float)
    assert isinstance(high, float)
    linear = 90 + 5 * (90 - low) / (high - low)
    by_logarithm = 90 + 5 * math.log(90 / low) / math.log(high / low)
    assert reading(chart, 14, 90).centile == pytest.approx(linear, abs=1e-9)
    assert abs(by_logarithm - linear) > 0.005


@pytest.mark.parametrize("chart", [c for c in CHARTS if c.name.startswith("WHO")], ids=names)
def test_who_gives_no_figure_beyond_its_outermost_curves(chart: GrowthChart) -> None:
    low, high = chart.value_at(30, 1), chart.value_at(30, 99)
    assert isinstance(low, float)
    assert isinstance(high, float)
    below, above = reading(chart, 30, 0.999 * low), reading(chart, 30, 1.001 * high)
    assert (below.z, below.centile, above.z, above.centile) == (None, None, None, None)
    assert "below the 1st centile" in below.note
    assert "above the 99th centile" in above.note
    assert reading(chart, 30, low).centile == pytest.approx(1)
    assert reading(chart, 30, high).centile == pytest.approx(99)


@pytest.mark.parametrize("chart", [c for c in CHARTS if c.name.startswith("WHO")], ids=names)
def test_who_curves_never_cross(chart: GrowthChart) -> None:
    """At 40 weeks exactly the boys' 97.5th and 99th meet, which divides nothing by zero."""
    assert isinstance(chart.distribution, Quantiles)
    for step in range(26 * 7 + 1):
        _, values = chart.distribution._curves(14 + step / 7)
        assert all(a < b for a, b in pairwise(values))
        assert all(math.isfinite(reading(chart, 14 + step / 7, value).centile or 0) for value in values)


@pytest.mark.parametrize("chart", CHARTS, ids=names)
def test_outside_its_weeks_a_chart_abstains(chart: GrowthChart) -> None:
    inside = chart.value_at(30, 50)
    assert isinstance(inside, float)
    for weeks in (chart.from_weeks - 1 / 7, chart.to_weeks + 1 / 7, 8.0, 44.0):
        for result in (chart.read(weeks, inside), chart.value_at(weeks, 50), chart.value_at_z(weeks, 0)):
            assert isinstance(result, Abstained)
            assert result.reason.startswith("N/A: ")
            assert "outside the chart's" in result.reason
            assert "abnormal" not in result.reason
    for weeks in (chart.from_weeks, chart.to_weeks):
        assert isinstance(chart.value_at(weeks, 50), float)


@pytest.mark.parametrize(
    ("name", "weeks"),
    [
        ("INTERGROWTH-21st 2014", (14, 40)),
        ("Hadlock 1984", (14, 42)),
        ("WHO 2017", (14, 40)),
        ("INTERGROWTH-21st 2017", (22, 40)),
        ("INTERGROWTH-21st 2020", (18, 41)),
        ("Hadlock 1991", (10, 40)),
    ],
)
def test_the_weeks_of_each_chart(name: str, weeks: tuple[float, float]) -> None:
    assert {(c.from_weeks, c.to_weeks) for c in CHARTS if c.name == name} == {weeks}


def test_each_chart_of_weight_names_its_formula() -> None:
    formulae = {c.name: c.weight_formula for c in CHARTS if c.measure is EFW}
    assert formulae.pop("INTERGROWTH-21st 2017") is INTERGROWTH_AC_HC
    assert len(formulae) == 5
    assert all(formula is HADLOCK_HC_AC_FL for formula in formulae.values())
    assert all(c.weight_formula is None for c in CHARTS if c.measure is not EFW)


def test_each_chart_of_the_diameter_names_its_calipers() -> None:
    assert {c.name: c.calipers for c in CHARTS if c.measure is BPD} == {
        "INTERGROWTH-21st 2014": Calipers.OUTER_OUTER,
        "Hadlock 1984": Calipers.OUTER_INNER,
        "WHO 2017": None,
    }


def test_names_are_unique() -> None:
    assert len({names(c) for c in CHARTS}) == len(CHARTS) == 19
    assert [c.sex for c in CHARTS if c.sex] == [Sex.FEMALE, Sex.MALE]
    with pytest.raises(KeyError):
        find_chart("WHO 2017", OFD)


def weeks_of(chart: GrowthChart) -> st.SearchStrategy[float]:
    return st.floats(chart.from_weeks, chart.to_weeks)


@pytest.mark.parametrize("chart", CHARTS, ids=names)
@given(data=st.data())
def test_value_and_centile_undo_each_other(chart: GrowthChart, data: st.DataObject) -> None:
    weeks, centile = data.draw(weeks_of(chart)), data.draw(st.floats(1, 99))
    value = chart.value_at(weeks, centile)
    assert isinstance(value, float)
    if chart.name == "WHO 2017, boys" and weeks > 39.99 and centile > 97.4:
        return  # Two curves meet there.
    assert reading(chart, weeks, value).centile == pytest.approx(centile, abs=1e-6)


@pytest.mark.parametrize("chart", [c for c in CHARTS if not c.name.startswith("WHO")], ids=names)
@given(data=st.data())
def test_value_and_z_undo_each_other(chart: GrowthChart, data: st.DataObject) -> None:
    weeks, z = data.draw(weeks_of(chart)), data.draw(st.floats(-3, 3))
    value = chart.value_at_z(weeks, z)
    assert isinstance(value, float)
    assert reading(chart, weeks, value).z == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize("chart", CHARTS, ids=names)
@given(data=st.data())
def test_centile_rises_with_the_value(chart: GrowthChart, data: st.DataObject) -> None:
    weeks = data.draw(weeks_of(chart))
    low, high = chart.value_at(weeks, 1), chart.value_at(weeks, 99)
    assert isinstance(low, float)
    assert isinstance(high, float)
    values = sorted(low + (high - low) * share for share in data.draw(st.lists(st.floats(0, 1), min_size=2)))
    centiles = [reading(chart, weeks, min(max(value, low), high)).centile for value in values]
    assert centiles == sorted(c for c in centiles if c is not None)


@pytest.mark.parametrize("chart", CHARTS, ids=names)
def test_the_median_rises_from_week_to_week(chart: GrowthChart) -> None:
    """To the chart's last week but for WHO's FL, whose median falls by 0.01 mm in its last day."""
    medians = [chart.value_at(week, 50) for week in range(math.ceil(chart.from_weeks), int(chart.to_weeks) + 1)]
    values = [value for value in medians if isinstance(value, float)]
    assert len(values) == len(medians)
    assert values == sorted(values)


def test_who_femur_curves_fall_in_the_last_quarter_of_a_week() -> None:
    """The published polynomials do so; the values stay as published, and the fall is below a pixel."""
    chart = find_chart("WHO 2017", FL)
    before, end = chart.value_at(39.7, 1), chart.value_at(40, 1)
    assert isinstance(before, float)
    assert isinstance(end, float)
    assert 0 < before - end < 0.05


@pytest.mark.parametrize("name", ["INTERGROWTH-21st 2017", "INTERGROWTH-21st 2020"])
def test_lms_is_smooth_where_its_power_passes_through_zero(name: str) -> None:
    chart = find_chart(name, EFW)
    assert isinstance(chart.distribution, LogLms)
    low, high = 25.0, 35.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if chart.distribution.skewness(middle) < 0 else (low, middle)
    at, beside = chart.value_at_z(low, 2), chart.value_at_z(low + 1e-4, 2)
    assert isinstance(at, float)
    assert isinstance(beside, float)
    assert beside - at == pytest.approx(0, abs=0.1)
    assert reading(chart, low, at).z == pytest.approx(2, abs=1e-9)


def test_lms_without_a_power_is_the_plain_logarithm() -> None:
    lms = LogLms(skewness=lambda _: 0.0, median=lambda _: 7.0, variation=lambda _: 0.02)
    value = lms.value_at_z(28, 1.5)
    assert value == pytest.approx(math.exp(7 * math.exp(0.03)))
    assert isinstance(value, float)
    assert lms.read(28, value).z == pytest.approx(1.5)
    assert lms.read(28, 1.0).centile is None


def test_lms_beyond_the_end_of_its_curve_abstains() -> None:
    value = find_chart("INTERGROWTH-21st 2017", EFW).value_at_z(22, 50)
    assert isinstance(value, Abstained)
    assert "no value at 50 standard deviations" in value.reason
