"""What measures say: an age where none is known, size where one is, and nothing where there is nothing to say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.quantities import AC, APAD, BPD, CEPHALIC_INDEX, FL, HC, OFD, TAD
from edgefetal_runtime.exam.interpretation import interpret
from edgefetal_runtime.exam.record import FrameRecord
from edgefetal_runtime.growth.gestation import parse_age

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.biometry.measurement import Quantity
    from edgefetal_runtime.exam.record import GrowthRecord, MeasurementRecord

FRAMES = (FrameRecord(index=4, timestamp_s=0.16), FrameRecord(index=3, timestamp_s=0.12))


def _interpret(
    measured: Mapping[Quantity, Measured | Abstained], age: str | None = None
) -> tuple[tuple[MeasurementRecord, ...], tuple[GrowthRecord, ...]]:
    return interpret("sweep.avi", measured, FRAMES, None if age is None else parse_age(age))


def _mm(value: float, half_width: float | None = None) -> Measured:
    return Measured(value, "mm", None if half_width is None else (value - half_width, value + half_width))


def _by_method(records: tuple[MeasurementRecord, ...], method: str) -> MeasurementRecord:
    (found,) = [r for r in records if r.method.partition(";")[0] == method]
    return found


# The equations as they were published, written down again, in weeks from mm.


def hadlock_hc(mm: float) -> float:
    return 8.96 + 0.540 * (mm / 10) + 0.0003 * (mm / 10) ** 3


def intergrowth_hc(mm: float) -> float:
    return math.exp(0.05970 * math.log(mm) ** 2 + 6.409e-9 * mm**3 + 3.3258) / 7


def hadlock_bpd(outer_inner_mm: float) -> float:
    return 9.54 + 1.482 * (outer_inner_mm / 10) + 0.1676 * (outer_inner_mm / 10) ** 2


def wong_outer_inner(outer_outer_mm: float) -> float:
    return -0.403458 + 0.9714153 * outer_outer_mm


def test_a_head_alone_is_dated_by_both_formulas_and_weighed_by_none() -> None:
    records, growth = _interpret({HC: _mm(175.0, 6.0)})
    assert [(r.name, r.unit, r.sweep, r.frames) for r in records] == [("GA", "weeks", "sweep.avi", FRAMES)] * 2
    for method, formula in (("Hadlock 1984 (HC)", hadlock_hc), ("INTERGROWTH-21st 2016 (HC)", intergrowth_hc)):
        record = _by_method(records, method)
        assert record.value == pytest.approx(formula(175.0), abs=1e-3)
        assert record.interval == pytest.approx((formula(169.0), formula(181.0)), abs=1e-3)
        assert record.abstained is None
    # 175 mm is 20 weeks of any published table.
    assert all(19.5 < (r.value or 0) < 20.5 for r in records)
    assert growth == ()


def test_the_spread_of_the_formula_itself_is_named() -> None:
    record = _by_method(_interpret({HC: _mm(175.0)})[0], "Hadlock 1984 (HC)")
    assert record.method == "Hadlock 1984 (HC); the formula's own 2 SD at this HC: 1.48 weeks"


def test_a_value_without_an_interval_gives_an_age_without_one() -> None:
    assert [r.interval for r in _interpret({HC: _mm(175.0)})[0]] == [None, None]


def test_a_bpd_is_converted_before_a_formula_reads_it() -> None:
    records, _ = _interpret({BPD: _mm(50.0, 2.0)})
    inner = records[0]
    assert (inner.name, inner.unit, inner.frames) == ("BPD_outer_inner", "mm", FRAMES)
    assert "Wong 2018" in inner.method
    assert inner.value == pytest.approx(wong_outer_inner(50.0))
    assert inner.interval == pytest.approx((wong_outer_inner(48.0), wong_outer_inner(52.0)))
    age = _by_method(records, "Hadlock 1984 (BPD)")
    assert age.value == pytest.approx(hadlock_bpd(wong_outer_inner(50.0)))
    assert age.interval == pytest.approx((hadlock_bpd(wong_outer_inner(48.0)), hadlock_bpd(wong_outer_inner(52.0))))
    # Reading the outer-to-outer figure as it stands would add two days.
    assert age.value != pytest.approx(hadlock_bpd(50.0), abs=0.2)
    assert "BPD 50.0 mm outer-outer read as 48.2 mm outer-inner (Wong 2018)" in age.method


def test_a_bpd_without_an_interval_is_converted_without_one() -> None:
    assert _interpret({BPD: _mm(50.0)})[0][0].interval is None


def test_all_measures_give_every_age_and_every_weight() -> None:
    records, _ = _interpret({HC: _mm(265.0, 8.0), BPD: _mm(73.0, 2.0), AC: _mm(240.0, 9.0), FL: _mm(53.0, 2.0)})
    ages = [r for r in records if r.name == "GA"]
    weights = [r for r in records if r.name == "EFW"]
    assert len(ages) == 15 + 2
    assert len({r.method.partition(";")[0] for r in records}) == len(records)
    assert len(weights) == 5
    assert {r.unit for r in weights} == {"g"}
    for record in (*ages, *weights):
        assert record.value is not None
        assert record.interval is not None
        assert record.interval[0] < record.value < record.interval[1]
    # Hadlock 1985 (HC, AC, FL): log10 g = 1.326 - 0.00326 AC FL + 0.0107 HC + 0.0438 AC + 0.158 FL, in cm.
    grams = 10 ** (1.326 - 0.00326 * 24 * 5.3 + 0.0107 * 26.5 + 0.0438 * 24 + 0.158 * 5.3)
    assert _by_method(records, "Hadlock 1985 (HC, AC, FL)").value == pytest.approx(grams)


def test_an_interval_needs_one_of_every_measure() -> None:
    records, _ = _interpret({HC: _mm(265.0, 8.0), FL: _mm(53.0)})
    assert _by_method(records, "Hadlock 1984 (HC)").interval is not None
    assert _by_method(records, "Hadlock 1984 (HC, FL)").value is not None
    assert _by_method(records, "Hadlock 1984 (HC, FL)").interval is None
    assert _by_method(records, "Hadlock 1984 (FL)").interval is None


@pytest.mark.parametrize(("hc_mm", "side"), [(60.0, "below"), (395.0, "above")])
def test_outside_its_range_a_formula_gives_a_reason_and_no_number(hc_mm: float, side: str) -> None:
    records, growth = _interpret({HC: _mm(hc_mm, 5.0)})
    assert len(records) == 2
    for record in records:
        assert (record.value, record.interval) == (None, None)
        assert record.abstained is not None
        assert f"{side} the formula's range of 14w0d to 4" in record.abstained
        assert "abnormal" not in record.abstained
    assert growth == ()


def test_an_interval_that_leaves_the_range_is_not_given_and_the_value_is() -> None:
    record = _by_method(_interpret({HC: _mm(95.0, 10.0)})[0], "Hadlock 1984 (HC)")
    assert record.value == pytest.approx(hadlock_hc(95.0))
    assert record.interval is None


@pytest.mark.parametrize(
    "measured",
    [
        {},
        {HC: Abstained("no head"), BPD: Abstained("no head"), OFD: Abstained("no head")},
        {CEPHALIC_INDEX: Measured(0.8, "1", (0.76, 0.84))},
        {HC: Abstained("no scale"), CEPHALIC_INDEX: Measured(0.8, "1")},
    ],
    ids=["no measures", "all abstained", "a ratio alone", "no scale"],
)
@pytest.mark.parametrize("age", [None, "20w2d"])
def test_no_measures_say_nothing(measured: dict[Quantity, Measured | Abstained], age: str | None) -> None:
    assert _interpret(measured, age) == ((), ())


def test_measures_that_no_formula_reads_say_nothing_of_age() -> None:
    assert _interpret({OFD: _mm(60.0), APAD: _mm(50.0), TAD: _mm(52.0)}) == ((), ())


def test_a_measure_that_abstained_is_in_no_formula() -> None:
    records, _ = _interpret({HC: _mm(175.0), BPD: Abstained("unsure"), FL: Abstained("cut")})
    assert [r.method.partition(";")[0] for r in records] == ["INTERGROWTH-21st 2016 (HC)", "Hadlock 1984 (HC)"]


# Size for age


def test_with_a_known_age_every_measure_is_placed_on_its_charts() -> None:
    _, growth = _interpret({HC: _mm(175.0, 6.0), BPD: _mm(48.5, 2.0), OFD: _mm(61.0, 2.0)}, age="20w0d")
    rows = {(row.measure, row.chart): row for row in growth}
    assert len(rows) == len(growth)
    assert {measure for measure, _ in rows} == {"HC", "BPD", "OFD"}
    assert {row.sweep for row in growth} == {"sweep.avi"}
    # INTERGROWTH-21st 2014, HC in mm: mean and SD at 20 weeks from the published equations.
    weeks = 20.0
    mean = -28.2849 + 1.69267 * weeks**2 - 0.397485 * weeks**2 * math.log(weeks)
    sd = (
        1.98735
        + 0.0136772 * weeks**3
        - 0.00726264 * weeks**3 * math.log(weeks)
        + 0.000976253 * (weeks**3 * math.log(weeks) ** 2)
    )
    row = rows["HC", "INTERGROWTH-21st 2014"]
    assert row.z == pytest.approx((175.0 - mean) / sd, abs=1e-3)

    def centile(mm: float) -> float:
        return 50 * (1 + math.erf((mm - mean) / sd / math.sqrt(2)))

    assert row.centile == pytest.approx(centile(175.0), abs=0.05)
    assert row.centile_interval == pytest.approx((centile(169.0), centile(181.0)), abs=0.05)


def test_centile_intervals_hold_their_centile() -> None:
    _, growth = _interpret({HC: _mm(175.0, 6.0), AC: _mm(150.0, 8.0), FL: _mm(32.0, 2.0)}, age="20w0d")
    given = [row for row in growth if row.centile is not None]
    assert {row.measure for row in given} == {"HC", "AC", "FL"} | {row.measure for row in given if row.measure == "EFW"}
    for row in given:
        if row.centile_interval is not None:
            assert row.centile is not None
            assert 0 <= row.centile_interval[0] <= row.centile <= row.centile_interval[1] <= 100
    assert any(row.centile_interval for row in given)


def test_a_chart_of_another_convention_reads_the_converted_bpd() -> None:
    _, growth = _interpret({BPD: _mm(48.5, 2.0)}, age="20w0d")
    converted = [row for row in growth if row.value == pytest.approx(wong_outer_inner(48.5))]
    assert converted
    for row in converted:
        assert "(Wong 2018)" in row.note
    assert [row for row in growth if row.value == 48.5]


def test_without_a_known_age_there_are_no_centiles() -> None:
    """Dated and charted by one measure, every fetus is of average size."""
    measured = {HC: _mm(175.0, 6.0), BPD: _mm(48.5, 2.0), OFD: _mm(61.0, 2.0), FL: _mm(32.0)}
    assert _interpret(measured)[1] == ()
    assert _interpret(measured, age="20w0d")[1] != ()


def test_a_known_age_outside_a_chart_gives_a_note_and_no_centile() -> None:
    _, growth = _interpret({HC: _mm(335.0, 8.0)}, age="43w0d")
    assert growth
    for row in growth:
        assert (row.z, row.centile, row.centile_interval) == (None, None, None)
        assert row.note.startswith("N/A")


def test_a_measure_without_an_interval_has_a_centile_without_one() -> None:
    _, growth = _interpret({HC: _mm(175.0)}, age="20w0d")
    assert any(row.centile is not None for row in growth)
    assert all(row.centile_interval is None for row in growth)


@given(
    hc_mm=st.floats(HC.least, HC.most),
    bpd_mm=st.none() | st.floats(BPD.least, BPD.most),
    fl_mm=st.none() | st.floats(FL.least, FL.most),
    ac_mm=st.none() | st.floats(AC.least, AC.most),
    half_width=st.none() | st.floats(0.0, 150.0),
    days=st.none() | st.integers(1, 45 * 7 - 1),
)
@example(hc_mm=100.0, bpd_mm=None, fl_mm=None, ac_mm=None, half_width=100.0, days=None)
@example(hc_mm=40.0, bpd_mm=None, fl_mm=None, ac_mm=45.0, half_width=45.0, days=None)
def test_whatever_is_measured_every_record_has_a_value_or_a_reason(
    hc_mm: float,
    bpd_mm: float | None,
    fl_mm: float | None,
    ac_mm: float | None,
    half_width: float | None,
    days: int | None,
) -> None:
    """Wild measures of no one fetus: formulas abstain, intervals stay in order, nothing breaks."""
    measured: dict[Quantity, Measured | Abstained] = {}
    for quantity, mm in ((HC, hc_mm), (BPD, bpd_mm), (FL, fl_mm), (AC, ac_mm)):
        interval = None if mm is None or half_width is None else (max(0.0, mm - half_width), mm + half_width)
        measured[quantity] = Abstained("not there") if mm is None else Measured(mm, "mm", interval)
    records, growth = _interpret(measured, None if days is None else f"{days // 7}w{days % 7}d")
    for record in records:
        assert (record.value is None) != (record.abstained is None)
        assert record.value is None or math.isfinite(record.value)
        if record.interval is not None:
            assert record.value is not None
            assert record.interval[0] <= record.value <= record.interval[1]
    assert (growth == ()) == (days is None)
    for row in growth:
        assert row.centile is None or 0 <= row.centile <= 100
        if row.centile_interval is not None:
            assert row.centile is not None
            assert row.centile_interval[0] <= row.centile <= row.centile_interval[1]
        assert row.centile is not None or row.note
