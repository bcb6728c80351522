"""The femur's shaft: its length between the middles of its ends, or a reason."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.femur import MAX_BOW, MIN_LENGTH_RATIO, Shaft, find_shaft, measure_femur
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.quantities import FL
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox
from edgefetal_runtime.scale import NOT_GIVEN, Scale

SPEC = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)
SHAPE = (540, 800)
BOX = letterbox(*SHAPE, SPEC)
SCALE = Scale(0.15, 0.15, origin="test")
ROWS, COLUMNS = np.mgrid[: SPEC.height_px, : SPEC.width_px].astype(float)
SUBPIXEL_BITS = 4
ZOOM = 6


def _shaft_mm(
    length: float, width: float, bow: float = 0.0, oblique: float = 0.0, flare: float = 0.0
) -> npt.NDArray[np.float64]:
    """Corners of a shaft around its middle, (N, 2) in mm; the middles of its ends are `length` apart.

    Args:
        length: between the middles of the ends.
        width: in the middle.
        bow: height of the arc over the line between the ends, as a share of the length.
        oblique: angle of the ends against the right one; both lean the same way.
        flare: how much wider the ends are than the middle, as a share.
    """
    t = np.linspace(-0.5, 0.5, 200)
    half = width / 2 * (1 + flare * (2 * np.abs(t)) ** 6)
    lean = np.tan(oblique) * half * (2 * t)
    middle = bow * length * (1 - 4 * t**2)
    upper = np.stack((t * length + lean, middle + half), axis=1)
    lower = np.stack((t * length - lean, middle - half), axis=1)
    return np.concatenate((upper, lower[::-1]))


def _logits(corners_px: npt.NDArray[np.float64], softness: float = 0.7) -> npt.NDArray[np.float32]:
    """Logits of a network that sees a shape, corners in frame pixels, to a pixel or so of its own."""
    large = np.zeros((SPEC.height_px * ZOOM, SPEC.width_px * ZOOM), np.uint8)
    corners = (BOX.to_network(corners_px) + 0.5) * ZOOM - 0.5
    cv2.fillPoly(large, [np.round(corners * 2**SUBPIXEL_BITS).astype(np.int32)], (1,), cv2.LINE_8, SUBPIXEL_BITS)
    share = large.reshape(SPEC.height_px, ZOOM, SPEC.width_px, ZOOM).mean(axis=(1, 3))
    return (10 * (cv2.GaussianBlur(share, (0, 0), softness) - 0.5)).astype(np.float32)


def _placed(
    corners_mm: npt.NDArray[np.float64], angle: float, scale: Scale = SCALE, at: tuple[float, float] = (400.0, 270.0)
) -> npt.NDArray[np.float64]:
    """Turn a shape in mm and put it at a place in frame pixels."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.asarray(corners_mm @ turn.T / (scale.x_mm_per_px, scale.y_mm_per_px) + at)


def _length(shaft: Shaft | Abstained) -> float:
    assert isinstance(shaft, Shaft), shaft
    return shaft.length


def _why(shaft: Shaft | Abstained) -> str:
    assert isinstance(shaft, Abstained), shaft
    return shaft.reason


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    length=st.floats(14, 60),
    width=st.floats(2.5, 5),
    angle=st.floats(0, 2 * math.pi),
    bow=st.floats(-0.06, 0.06),
    oblique=st.floats(-0.4, 0.4),
    flare=st.floats(0, 0.4),
    across=st.floats(-20, 20),
)
def test_the_length_is_that_between_the_middles_of_the_ends(
    length: float, width: float, angle: float, bow: float, oblique: float, flare: float, across: float
) -> None:
    corners = _placed(_shaft_mm(length, width, bow, oblique, flare), angle, at=(400.0 + across, 270.0 - across))
    shaft = find_shaft(_logits(corners), BOX, SCALE)
    # A network pixel is 0.42 mm here.
    assert _length(shaft) == pytest.approx(length, abs=0.6)
    assert isinstance(shaft, Shaft)
    assert shaft.width == pytest.approx(width * (1 + flare / 7), rel=0.25)


@pytest.mark.parametrize("angle", np.linspace(0, math.pi, 7).tolist())
def test_the_ends_are_given_in_frame_pixels_for_drawing(angle: float) -> None:
    shaft = find_shaft(_logits(_placed(_shaft_mm(40, 4), angle)), BOX, SCALE)
    assert isinstance(shaft, Shaft)
    true = _placed(np.array([[-20.0, 0.0], [20.0, 0.0]]), angle)
    ends = min((shaft.ends_px, shaft.ends_px[::-1]), key=lambda pair: float(np.abs(pair - true).max()))
    np.testing.assert_allclose(ends, true, atol=2.0)
    np.testing.assert_array_equal(shaft.contour_px, shaft.ends_px)


@pytest.mark.parametrize(("x", "y"), [(0.10, 0.15), (0.15, 0.10), (0.09, 0.2)])
@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2, 2.4])
def test_unequal_pixels_do_no_harm(x: float, y: float, angle: float) -> None:
    scale = Scale(x, y, origin="test")
    corners = _placed(_shaft_mm(35, 4), angle, scale)
    assert _length(find_shaft(_logits(corners), BOX, scale)) == pytest.approx(35, abs=0.6)


def test_turning_and_moving_changes_the_length_by_less_than_half_a_pixel() -> None:
    found = [
        _length(
            find_shaft(_logits(_placed(_shaft_mm(40, 4), angle, at=(400 + 3 * angle, 270 - 5 * angle))), BOX, SCALE)
        )
        for angle in np.linspace(0, math.pi, 25)
    ]
    assert np.ptp(found) < 0.5 * BOX.x.step * 0.15
    assert np.mean(found) == pytest.approx(40, abs=0.15)


def test_the_length_does_not_depend_on_the_logits_scale() -> None:
    logits = _logits(_placed(_shaft_mm(40, 4), 0.5))
    lengths = [_length(find_shaft(logits * np.float32(k), BOX, SCALE)) for k in (1e-3, 1, 1e6, 1e30)]
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_double_precision_is_taken_too_however_large() -> None:
    logits = _logits(_placed(_shaft_mm(40, 4), 0.5)).astype(np.float64)
    assert _length(find_shaft(logits * 1e300, BOX, SCALE)) == pytest.approx(40, abs=0.6)


def test_without_a_scale_there_is_a_shaft_and_no_length_in_millimetres() -> None:
    shaft = find_shaft(_logits(_placed(_shaft_mm(40, 4), 0.5)), BOX, NOT_GIVEN)
    assert isinstance(shaft, Shaft)
    assert shaft.extent == shaft.length == pytest.approx(40 / 0.15, rel=0.01)
    assert measure_femur(shaft) == {FL: Abstained(NOT_GIVEN.reason)}


def test_with_a_scale_the_length_is_measured() -> None:
    shaft = find_shaft(_logits(_placed(_shaft_mm(40, 4), 0.5)), BOX, SCALE)
    assert isinstance(shaft, Shaft)
    assert measure_femur(shaft) == {FL: Measured(shaft.length, "mm")}


@pytest.mark.parametrize("length_mm", [3.0, 5.0, 95.0, 400.0])
def test_lengths_of_no_fetus_are_refused(length_mm: float) -> None:
    measured = measure_femur(Shaft(np.zeros((2, 2)), length_mm, 2.0, SCALE))[FL]
    assert isinstance(measured, Abstained)
    assert "check the pixel size" in measured.reason


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.2])
def test_a_shaft_that_the_picture_cuts_is_refused(angle: float) -> None:
    # The end lies beyond the border of the picture, whichever border that is.
    away = 0.5 * np.array([800 * math.cos(angle), 540 * math.sin(angle)])
    corners = _placed(_shaft_mm(45, 4), angle, at=(400 + 0.9 * away[0], 270 + 0.9 * away[1]))
    logits = _logits(corners)
    assert (logits > 0).any()
    assert "the picture; show both ends" in _why(find_shaft(logits, BOX, SCALE))


@pytest.mark.parametrize("cut", [-10.0, 0.0, 10.0, 14.0])
@pytest.mark.parametrize("lean", [0.0, 0.5, -0.5])
def test_a_shaft_that_the_fan_cuts_is_refused(cut: float, lean: float) -> None:
    logits = _logits(_placed(_shaft_mm(40, 4), 0.3))
    at = BOX.to_network(_placed(np.array([[cut, 0.0]]), 0.3))[0]
    field = (COLUMNS - at[0]) * math.cos(0.3 + lean) + (ROWS - at[1]) * math.sin(0.3 + lean) < 0
    clipped = np.where(field, logits, -5).astype(np.float32)
    assert "edge of the picture; show both ends" in _why(find_shaft(clipped, BOX, SCALE, field))


def test_a_shaft_well_within_the_fan_is_measured() -> None:
    field = np.zeros((SPEC.height_px, SPEC.width_px), bool)
    field[20:170, 20:270] = True
    logits = _logits(_placed(_shaft_mm(40, 4), 0.3))
    assert _length(find_shaft(logits, BOX, SCALE, field)) == _length(find_shaft(logits, BOX, SCALE))


@pytest.mark.parametrize(("ratio", "given"), [(MIN_LENGTH_RATIO - 0.4, False), (MIN_LENGTH_RATIO + 0.4, True)])
def test_an_outline_too_stout_is_no_femur(ratio: float, given: bool) -> None:  # noqa: FBT001 - a parameter
    shaft = find_shaft(_logits(_placed(_shaft_mm(12 * ratio, 12), 0.3)), BOX, SCALE)
    assert isinstance(shaft, Shaft) == given
    if isinstance(shaft, Abstained):
        assert f"{MIN_LENGTH_RATIO:g} is the least for a femur" in shaft.reason


@pytest.mark.parametrize(("bow", "given"), [(0.5 * MAX_BOW, True), (0.9 * MAX_BOW, True), (1.4 * MAX_BOW, False)])
def test_an_outline_that_bends_too_much_is_no_femur(bow: float, given: bool) -> None:  # noqa: FBT001 - a parameter
    shaft = find_shaft(_logits(_placed(_shaft_mm(45, 3.5, bow), 0.3)), BOX, SCALE)
    assert isinstance(shaft, Shaft) == given
    if isinstance(shaft, Abstained):
        assert shaft.reason == "the outline bends more than a femur does; find a clearer plane"


def test_two_femurs_are_refused() -> None:
    both = np.maximum(
        *(_logits(_placed(_shaft_mm(40, 4), 0.2, at=(400.0, y))) for y in (180.0, 360.0)),
    )
    assert _why(find_shaft(both, BOX, SCALE)) == "more than one femur is outlined; show one alone"


def test_nothing_and_what_is_no_map_are_refused() -> None:
    assert _why(find_shaft(np.full((192, 288), -1, np.float32), BOX, SCALE)) == "no femur is outlined"
    assert "finite numbers" in _why(find_shaft(np.full((192, 288), np.nan, np.float32), BOX, SCALE))
    everything = find_shaft(np.ones((192, 288), np.float32), BOX, SCALE)
    assert "show both ends" in _why(everything)
