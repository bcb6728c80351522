"""Intervals: the table's half width, less by fusion, wider by the scale."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.interval import (
    frame_half_width,
    fused_share,
    measurements,
    scale_half_width,
    with_interval,
)
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.quantities import BPD, CEPHALIC_INDEX, HC
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals
from edgefetal_runtime.scale import NOT_GIVEN, Scale

SCALE = Scale(0.12, 0.12, origin="test", relative_uncertainty=0.01)
EXACT = replace(SCALE, relative_uncertainty=0.0)
TABLE = Intervals(
    level=0.9,
    dataset="test",
    n_subjects=100,
    subjects=("a",),
    digests=("b",),
    shared=0.25,
    bands={
        HC.name: (
            IntervalBand(below=150.0, half_width=4.0, n=50),
            IntervalBand(below=250.0, half_width=6.0, n=30),
            IntervalBand(below=None, half_width=9.0, n=20),
        ),
        CEPHALIC_INDEX.name: (IntervalBand(below=None, half_width=0.03, n=100),),
    },
)


def _half(measured: Measured | Abstained) -> float:
    assert isinstance(measured, Measured)
    assert measured.interval is not None
    low, high = measured.interval
    assert low + high == pytest.approx(2 * measured.value)
    return (high - low) / 2


@pytest.mark.parametrize(
    ("value", "half_width"), [(60.0, 4.0), (149.999, 4.0), (150.0, 6.0), (249.0, 6.0), (250.0, 9.0), (390.0, 9.0)]
)
def test_a_band_holds_from_its_lower_end_to_below_its_upper(value: float, half_width: float) -> None:
    assert frame_half_width(TABLE, HC.name, value) == half_width
    assert _half(with_interval(HC, Measured(value, "mm"), EXACT, TABLE)) == pytest.approx(half_width)


def test_a_measure_without_a_table_has_no_interval() -> None:
    assert frame_half_width(TABLE, BPD.name, 60.0) is None
    assert with_interval(BPD, Measured(60.0, "mm"), SCALE, TABLE) == Measured(60.0, "mm")
    assert with_interval(HC, Measured(180.0, "mm"), SCALE, None) == Measured(180.0, "mm")


def test_the_scale_alone_makes_a_normal_half_width() -> None:
    # 90 % of a normal variable lie within 1.6449 standard deviations.
    assert scale_half_width(200.0, SCALE, 0.9) == pytest.approx(1.6448536 * 2.0)
    assert scale_half_width(200.0, EXACT, 0.9) == 0


def test_half_widths_of_table_and_scale_add_in_squares() -> None:
    measured = with_interval(HC, Measured(200.0, "mm"), SCALE, TABLE)
    assert _half(measured) == pytest.approx(math.hypot(6.0, 1.6448536 * 2.0))


def test_fusion_narrows_the_table_and_not_the_scale() -> None:
    measured = with_interval(HC, Measured(200.0, "mm"), SCALE, TABLE, effective_frames=4.0)
    assert _half(measured) == pytest.approx(math.hypot(6.0 * math.sqrt(0.25 + 0.75 / 4), 1.6448536 * 2.0))
    for_ever = with_interval(HC, Measured(200.0, "mm"), EXACT, TABLE, effective_frames=1e12)
    assert _half(for_ever) == pytest.approx(6.0 * 0.5)


@pytest.mark.parametrize("scale", [SCALE, EXACT], ids=["uncertain", "exact"])
def test_a_ratio_is_not_widened_by_the_scale(scale: Scale) -> None:
    assert _half(with_interval(CEPHALIC_INDEX, Measured(0.8, "1"), scale, TABLE)) == pytest.approx(0.03)


def test_a_ratio_of_pixels_that_may_not_be_square_has_no_interval() -> None:
    measured = with_interval(CEPHALIC_INDEX, Measured(0.8, "1"), NOT_GIVEN, TABLE)
    assert (measured.value, measured.interval) == (0.8, None)
    assert "square" in measured.no_interval


def test_an_interval_does_not_reach_below_nothing() -> None:
    table = TABLE.model_copy(update={"bands": {HC.name: (IntervalBand(below=None, half_width=90.0, n=1),)}})
    measured = with_interval(HC, Measured(60.0, "mm"), EXACT, table)
    assert measured.interval == (0.0, 150.0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(value=st.floats(40, 400), frames=st.floats(1, 1e4), sd=st.floats(0, 0.03), shared=st.floats(0, 1))
def test_an_interval_never_narrows_below_what_frames_share_and_the_scale(
    value: float, frames: float, sd: float, shared: float
) -> None:
    table = TABLE.model_copy(update={"shared": shared})
    scale = replace(SCALE, relative_uncertainty=sd)
    half, single = (_half(with_interval(HC, Measured(value, "mm"), scale, table, n)) for n in (frames, 1.0))
    table_half = frame_half_width(table, HC.name, value)
    assert table_half is not None
    least = math.hypot(table_half * math.sqrt(shared), scale_half_width(value, scale, 0.9))
    assert least - 1e-9 <= half <= single + 1e-9
    assert math.sqrt(shared) - 1e-9 <= fused_share(shared, frames) <= 1 + 1e-9


def test_each_quantity_has_a_value_or_its_own_reason() -> None:
    found = measurements({HC: 20.0, BPD: 60.0}, {CEPHALIC_INDEX: 0.8}, SCALE, TABLE)
    assert found[HC] == Abstained("HC would be 20 mm, outside 40 to 400; check the pixel size")
    assert found[BPD] == Measured(60.0, "mm")
    assert _half(found[CEPHALIC_INDEX]) == pytest.approx(0.03)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -5.0, 0.0])
def test_what_is_no_length_is_refused(value: float) -> None:
    assert isinstance(measurements({HC: value}, {}, SCALE, TABLE)[HC], Abstained)
    assert isinstance(measurements({}, {CEPHALIC_INDEX: value}, SCALE, TABLE)[CEPHALIC_INDEX], Abstained)


def test_without_a_scale_lengths_have_its_reason_and_ratios_a_value() -> None:
    found = measurements({HC: 200.0, BPD: 60.0}, {CEPHALIC_INDEX: 0.8}, NOT_GIVEN, TABLE)
    assert found[HC] == found[BPD] == Abstained(NOT_GIVEN.reason)
    assert isinstance(found[CEPHALIC_INDEX], Measured)
