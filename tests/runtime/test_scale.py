"""Pixel sizes: what is one, what is refused, and how the command line's text is read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import EdgeFetalError, ScaleError
from edgefetal_runtime.scale import (
    CALIPER_RELATIVE_SD,
    MAX_MM_PER_PX,
    MIN_MM_PER_PX,
    NOT_GIVEN,
    NoScale,
    Scale,
    disagreement,
    parse_mm_per_px,
    refuse_conflict,
)

FEW = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("value", [0.0, -0.0, -0.12, math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_positive_number_is_refused(axis: str, value: float) -> None:
    sizes = {"x_mm_per_px": 0.12, "y_mm_per_px": 0.12} | {f"{axis}_mm_per_px": value}
    with pytest.raises(ScaleError, match=rf"in {axis} is .*\(table, row 7\); give a positive number of mm per pixel"):
        Scale(**sizes, origin="table, row 7")


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("value", [0.0012, 120.0, math.nextafter(MIN_MM_PER_PX, 0), math.nextafter(MAX_MM_PER_PX, 9)])
def test_a_figure_in_another_unit_is_refused_with_a_hint(axis: str, value: float) -> None:
    sizes = {"x_mm_per_px": 0.12, "y_mm_per_px": 0.12} | {f"{axis}_mm_per_px": value}
    with pytest.raises(ScaleError, match=rf"in {axis} is .*check that it is in mm per pixel and not in cm"):
        Scale(**sizes, origin="test")


@pytest.mark.parametrize("value", [MIN_MM_PER_PX, 0.05, 0.4, MAX_MM_PER_PX])
def test_plausible_figures_are_taken_as_they_are(value: float) -> None:
    scale = Scale(value, 0.9 * value if value > 1 else 1.1 * value, origin="test")
    assert (scale.x_mm_per_px, scale.relative_uncertainty) == (value, CALIPER_RELATIVE_SD)
    assert scale.y_mm_per_px == pytest.approx(value, rel=0.11)


@pytest.mark.parametrize("uncertainty", [-0.001, 0.031, math.nan, math.inf])
def test_an_uncertainty_that_leaves_no_scale_is_refused(uncertainty: float) -> None:
    with pytest.raises(ScaleError, match="measure it again on a phantom or a ruler"):
        Scale(0.1, 0.1, "test", uncertainty)


def test_no_scale_is_falsy_and_says_why() -> None:
    assert not NoScale("the depth changed")
    assert Scale(0.1, 0.1, "test")
    for option in ("--mm-per-px", "--scale-csv", "--scale-profile", "--depth-mm"):
        assert option in NOT_GIVEN.reason


@FEW
@given(x=st.floats(0.05, 1), y=st.floats(0.9, 1.1), error=st.floats(-0.05, 0.05), in_x=st.booleans())
def test_two_scales_conflict_where_either_axis_differs_by_more_than_one_percent(
    x: float,
    y: float,
    error: float,
    in_x: bool,  # noqa: FBT001 - hypothesis passes by name
) -> None:
    one = Scale(x, x * y, "table")
    other = Scale(x * (1 + error * in_x), x * y * (1 + error * (not in_x)), "typed")
    assert disagreement(other, one) == pytest.approx(abs(error), abs=1e-9)
    if disagreement(one, other) > 0.01:
        with pytest.raises(ScaleError, match=r"by table and .* by typed; find out which is right"):
            refuse_conflict(one, other)
    else:
        refuse_conflict(one, other)


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [("0.12", 0.12, 0.12), ("0.12,0.13", 0.12, 0.13), (" 0.12 , 0.13 ", 0.12, 0.13), ("12e-2", 0.12, 0.12)],
)
def test_text_of_one_or_two_numbers_is_x_then_y(text: str, x: float, y: float) -> None:
    assert parse_mm_per_px(text) == Scale(x, y, origin="command line")


@pytest.mark.parametrize("text", ["", ",", "0.12,", "0.1,0.1,0.1", "0.12mm", "0.12;0.13", "0.12 0.13", "a", "0x1"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ScaleError, match=r"give one number, or two as X,Y, such as 0\.12"):
        parse_mm_per_px(text)


@pytest.mark.parametrize("text", ["0,12", "0.12,0", "-0.1", "nan", "inf", "0.12,nan", "1e999", "0.0001", "120"])
def test_numbers_that_are_no_pixel_size_are_refused(text: str) -> None:
    # `0,12` is how half the world writes 0.12: it must not become x = 0 and y = 12.
    with pytest.raises(ScaleError, match="Pixel size in"):
        parse_mm_per_px(text)


@pytest.mark.parametrize("text", ["0.1,0.5", "1.2,0.2"])
def test_pixels_that_no_capture_makes_are_refused(text: str) -> None:
    with pytest.raises(ScaleError, match="check X and Y"):
        parse_mm_per_px(text)


@FEW
@given(st.text() | st.text(alphabet="0123456789.,-+eE naif_", max_size=12))
def test_any_text_is_a_plausible_scale_or_a_user_error(text: str) -> None:
    try:
        scale = parse_mm_per_px(text)
    except EdgeFetalError:
        return
    assert MIN_MM_PER_PX <= scale.x_mm_per_px <= MAX_MM_PER_PX
    assert MIN_MM_PER_PX <= scale.y_mm_per_px <= MAX_MM_PER_PX
