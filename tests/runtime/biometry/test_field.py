"""The field of view: the fan without what stands beside it, and the points on its edge."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edgefetal_runtime.biometry.field import EDGE_PX, fan_field, inner_field, picture_field, points_in_field
from edgefetal_runtime.infer.preprocess import PreprocessSpec, preprocess

SPEC = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)
SHAPE = (540, 800)
Grey = npt.NDArray[np.uint8]


def _fan(shape: tuple[int, int] = SHAPE, half_angle: float = 0.6, near: float = 60, far: float = 480) -> Grey:
    """A curvilinear fan, its apex above the top, filled with speckle of level 30 to 90."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = columns - shape[1] / 2, rows + 30.0
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    inside = (np.abs(angle) < half_angle) & (radius > near) & (radius < far)
    grey = cv2.resize(np.random.default_rng(0).integers(30, 90, (135, 200)).astype(np.uint8), shape[::-1])
    return np.where(inside, grey, 0).astype(np.uint8)


def _field(grey: Grey) -> npt.NDArray[np.bool_]:
    image, box = preprocess(grey, SPEC)
    return fan_field(image[0, 0], SPEC, box)


def _hull(grey: Grey) -> npt.NDArray[np.bool_]:
    """The convex hull of what is lit, at full size and then reduced: the plain way."""
    hull = cv2.convexHull(cv2.findNonZero(grey))
    drawn = cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), hull, (255,))
    image, _ = preprocess(drawn, SPEC)
    return np.asarray(image[0, 0] * SPEC.std + SPEC.mean > 0.5)


@pytest.mark.parametrize("half_angle", [0.35, 0.6, 0.8])
@pytest.mark.parametrize("far", [300, 480, 520])
def test_the_field_is_the_hull_of_the_fan(half_angle: float, far: float) -> None:
    grey = _fan(half_angle=half_angle, far=far)
    found, true = _field(grey), _hull(grey)
    # They differ along the blurred edge and nowhere else.
    kernel = np.ones((3, 3), np.uint8)
    assert not (found & ~cv2.dilate(true.view(np.uint8), kernel).astype(bool)).any()
    assert not (~found & cv2.erode(true.view(np.uint8), kernel).astype(bool)).any()


def test_colour_bars_rulers_and_texts_beside_the_fan_are_not_of_the_field() -> None:
    plain = _fan(half_angle=0.45)
    grey = plain.copy()
    grey[100:400, 760:785] = np.linspace(255, 10, 300)[:, None]
    for y in range(40, 520, 40):
        grey[y : y + 3, 20:35] = 200
    cv2.putText(grey, "3.5 MHz 14 cm", (20, 480), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255,), 2)
    np.testing.assert_array_equal(_field(grey), _field(plain))


def test_a_fan_that_touches_nothing_is_found() -> None:
    grey = np.zeros(SHAPE, np.uint8)
    cv2.circle(grey, (400, 270), 150, (80,), -1)
    field = _field(grey)
    assert field.sum() == pytest.approx(math.pi * (150 * 0.35556) ** 2, rel=0.05)
    assert not field[:, [0, -1]].any()
    assert not field[[0, -1]].any()


def test_dark_tissue_within_the_fan_is_of_the_field() -> None:
    grey = _fan()
    cv2.ellipse(grey, (400, 300), (140, 100), 20, 0, 360, (0,), -1)
    np.testing.assert_array_equal(_field(grey), _field(_fan()))


def test_a_shadow_from_the_probe_to_the_far_edge_does_not_split_the_field() -> None:
    grey = _fan()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = np.arctan2(columns - SHAPE[1] / 2, rows + 30.0)
    grey[(np.abs(angle - 0.1) < 0.05) & (rows > 140)] = 0
    assert (_field(grey) ^ _field(_fan())).mean() < 0.01


@pytest.mark.parametrize("level", [0, 2, 4])
def test_of_a_black_picture_the_whole_is_the_field(level: int) -> None:
    image, box = preprocess(np.full((400, 500), level, np.uint8), SPEC)
    np.testing.assert_array_equal(fan_field(image[0, 0], SPEC, box), picture_field(box, (192, 288)))


def test_a_text_alone_is_no_fan() -> None:
    grey = np.zeros(SHAPE, np.uint8)
    cv2.putText(grey, "NO SIGNAL", (300, 270), cv2.FONT_HERSHEY_SIMPLEX, 1, (255,), 3)
    _, box = preprocess(grey, SPEC)
    np.testing.assert_array_equal(_field(grey), picture_field(box, (192, 288)))


@pytest.mark.parametrize("shape", [(540, 800), (800, 540), (192, 288), (480, 640), (40, 900)])
def test_a_picture_that_is_lit_throughout_is_all_field(shape: tuple[int, int]) -> None:
    image, box = preprocess(np.full(shape, 120, np.uint8), SPEC)
    np.testing.assert_array_equal(fan_field(image[0, 0], SPEC, box), picture_field(box, (192, 288)))
    assert picture_field(box, (192, 288)).sum() == box.content_height_px * box.content_width_px


def test_noise_of_compression_in_the_black_is_not_of_the_field() -> None:
    grey = np.maximum(_fan(), np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8))
    assert (_field(grey) ^ _field(_fan())).mean() < 0.01


def test_the_inner_field_is_smaller_by_its_margin_on_all_sides() -> None:
    field = np.zeros((40, 60), bool)
    field[5:30, 10:60] = True
    expected = np.zeros_like(field)
    expected[5 + EDGE_PX : 30 - EDGE_PX, 10 + EDGE_PX : 60 - EDGE_PX] = True
    np.testing.assert_array_equal(inner_field(field), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (8, 8), (9, 9), (9, 12)])
def test_a_tiny_field_has_at_most_its_middle_inside(shape: tuple[int, int]) -> None:
    expected = max(0, shape[0] - 2 * EDGE_PX) * max(0, shape[1] - 2 * EDGE_PX)
    assert inner_field(np.ones(shape, bool)).sum() == expected


def test_points_are_told_by_the_pixel_that_they_lie_in() -> None:
    field = np.zeros((4, 6), bool)
    field[2, 3] = True
    points = np.array(
        [[3.0, 2.0], [3.4, 1.6], [3.6, 2.0], [3.0, 2.6], [-0.6, 2.0], [9.0, 2.0], [3.0, -7.0], [3.0, 6.0]]
    )
    assert points_in_field(points, field).tolist() == [True, True, False, False, False, False, False, False]
    assert points_in_field(np.empty((0, 2)), field).shape == (0,)


def test_points_beyond_a_corner_of_a_full_field_are_not_in_it() -> None:
    field = np.ones((4, 6), bool)
    outside = np.array([[-1.0, 0.0], [0.0, -1.0], [6.0, 3.0], [5.0, 4.0], [-1.0, 4.0], [1e9, 1e9], [-1e9, 2.0]])
    assert not points_in_field(outside, field).any()
