"""Ellipse geometry: perimeter, distance, fits, regions and sub-pixel contours."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.ellipse import (
    MIN_FIT_POINTS,
    Ellipse,
    _conics,
    contour_points,
    ellipse_from_points,
    robust_ellipse_from_points,
)

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
Points = npt.NDArray[np.float64]


def ellipses(least_ratio: float = 0.3, largest: float = 400.0) -> st.SearchStrategy[Ellipse]:
    return st.builds(
        lambda x, y, semi_major, ratio, angle: Ellipse(x, y, semi_major, semi_major * ratio, angle),
        st.floats(-500, 1500),
        st.floats(-500, 1500),
        st.floats(10, largest),
        st.floats(least_ratio, 1.0),
        st.floats(0, math.pi, exclude_max=True),
    )


def _points(ellipse: Ellipse, parameters: Points) -> Points:
    """Points of an ellipse by the textbook, as a check on the code's own."""
    rotation = np.array(
        [
            [math.cos(ellipse.angle_rad), -math.sin(ellipse.angle_rad)],
            [math.sin(ellipse.angle_rad), math.cos(ellipse.angle_rad)],
        ]
    )
    local = np.stack((ellipse.semi_major * np.cos(parameters), ellipse.semi_minor * np.sin(parameters)))
    return np.add((rotation @ local).T, (ellipse.center_x, ellipse.center_y))


def _nearest(ellipse: Ellipse, points: Points) -> Points:
    """Distances to the ellipse by brute force: to the nearest of 720 straight pieces."""
    corners = _points(ellipse, np.linspace(0, 2 * math.pi, 721))
    begin, along = corners[:-1], np.diff(corners, axis=0)
    ahead = points[:, None] - begin
    share = np.clip((ahead * along).sum(axis=2) / (along**2).sum(axis=1), 0, 1)
    return np.linalg.norm(ahead - share[..., None] * along, axis=2).min(axis=1)


def _assert_alike(found: Ellipse, true: Ellipse, tolerance: float) -> None:
    """Equal sizes, and outlines that lie on each other; angles of near circles may differ."""
    assert found.semi_major == pytest.approx(true.semi_major, abs=tolerance)
    assert found.semi_minor == pytest.approx(true.semi_minor, abs=tolerance)
    parameters = np.linspace(0, 2 * math.pi, 90)
    assert _nearest(true, _points(found, parameters)).max() < 2 * tolerance
    assert found.semi_major >= found.semi_minor
    assert 0 <= found.angle_rad < math.pi


@SETTINGS
@given(ellipse=ellipses())
def test_circumference_is_the_integral_of_the_arc(ellipse: Ellipse) -> None:
    # The integrand is smooth and periodic, so the plain sum is exact to rounding.
    t = np.linspace(0, 2 * math.pi, 4096, endpoint=False)
    speed = np.hypot(ellipse.semi_major * np.sin(t), ellipse.semi_minor * np.cos(t))
    assert ellipse.circumference() == pytest.approx(2 * math.pi * speed.mean(), rel=1e-6)


def test_circumference_of_a_circle_and_of_a_known_ellipse() -> None:
    assert Ellipse(0, 0, 10, 10, 0).circumference() == pytest.approx(20 * math.pi)
    # 4 a E(e) with a = 2, b = 1 (DLMF 19.30.5).
    assert Ellipse(0, 0, 2, 1, 1).circumference() == pytest.approx(9.688448220547675, rel=1e-6)


@SETTINGS
@given(ellipse=ellipses(), distance=st.floats(-2, 5))
def test_growing_moves_both_axes_and_nothing_else(ellipse: Ellipse, distance: float) -> None:
    grown = ellipse.grown(distance)
    assert grown.semi_major == ellipse.semi_major + distance
    assert grown.semi_minor == ellipse.semi_minor + distance
    assert (grown.center_x, grown.center_y, grown.angle_rad) == (ellipse.center_x, ellipse.center_y, ellipse.angle_rad)


@SETTINGS
@given(ellipse=ellipses(), count=st.integers(3, 200))
def test_points_go_round_the_ellipse_once(ellipse: Ellipse, count: int) -> None:
    points = ellipse.points(count)
    np.testing.assert_allclose(points, _points(ellipse, np.arange(count) * 2 * math.pi / count), rtol=0, atol=1e-9)


@SETTINGS
@given(ellipse=ellipses(), count=st.integers(3, 60))
def test_points_on_the_ellipse_have_no_distance_to_it(ellipse: Ellipse, count: int) -> None:
    assert np.abs(ellipse.signed_distance(ellipse.points(count))).max() < 1e-9 * ellipse.semi_major


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ellipse=ellipses(least_ratio=0.6), share=st.floats(-0.1, 0.1))
def test_near_the_ellipse_the_distance_is_good_to_a_few_per_cent(ellipse: Ellipse, share: float) -> None:
    distance = share * ellipse.semi_minor
    t = np.linspace(0, 2 * math.pi, 60)
    on = _points(ellipse, t)
    ahead = _points(ellipse, t + 1e-5) - _points(ellipse, t - 1e-5)
    outward = np.stack((ahead[:, 1], -ahead[:, 0]), axis=1) / np.linalg.norm(ahead, axis=1, keepdims=True)
    found = ellipse.signed_distance(on + distance * outward)
    np.testing.assert_allclose(found, distance, rtol=0.08, atol=1e-6)


@SETTINGS
@given(ellipse=ellipses(), share=st.floats(0, 0.999), turn=st.floats(0, 2 * math.pi))
def test_inside_is_negative_and_outside_positive(ellipse: Ellipse, share: float, turn: float) -> None:
    (on,) = _points(ellipse, np.array([turn]))
    centre = np.array([ellipse.center_x, ellipse.center_y])
    inside, outside = centre + share * (on - centre), centre + (on - centre) / max(share, 1e-3)
    assert ellipse.signed_distance(inside) < 0
    assert ellipse.signed_distance(outside) > 0


def test_distance_keeps_the_shape_of_its_points_and_has_a_value_at_the_centre() -> None:
    ellipse = Ellipse(3.0, 4.0, 20.0, 10.0, 0.0)
    distance = ellipse.signed_distance(np.array([[[3.0, 4.0], [33.0, 4.0]], [[3.0, 14.0], [3.0, -16.0]]]))
    assert distance.shape == (2, 2)
    assert distance[0, 0] < -5.0
    np.testing.assert_allclose(distance[0, 1], 10.0, rtol=0.6)
    np.testing.assert_allclose(distance[1, 0], 0.0, atol=1e-9)


@SETTINGS
@given(ellipse=ellipses(), count=st.integers(MIN_FIT_POINTS, 200), seed=st.integers(0, 1000))
def test_a_fit_through_points_of_an_ellipse_is_that_ellipse(ellipse: Ellipse, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * 2 * math.pi / count
    points = rng.permutation(_points(ellipse, parameters))
    found = ellipse_from_points(points)
    assert found is not None
    _assert_alike(found, ellipse, 1e-3 * ellipse.semi_major)


@SETTINGS
@given(ellipse=ellipses(least_ratio=0.6), begin=st.floats(0, 2 * math.pi), share=st.floats(0.6, 1.0))
def test_a_fit_through_part_of_an_ellipse_is_the_whole_one(ellipse: Ellipse, begin: float, share: float) -> None:
    found = ellipse_from_points(_points(ellipse, begin + np.linspace(0, share * 2 * math.pi, 120)))
    assert found is not None
    _assert_alike(found, ellipse, 5e-3 * ellipse.semi_major)


@SETTINGS
@given(
    ellipse=ellipses(least_ratio=0.6),
    factor=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
)
def test_a_fit_moves_and_grows_with_its_points(ellipse: Ellipse, factor: float, shift: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    points = _points(ellipse, np.linspace(0, 6, 80)) + rng.normal(0, 0.01 * ellipse.semi_minor, (80, 2))
    plain, moved = ellipse_from_points(points), ellipse_from_points(points * factor + shift)
    assert plain is not None
    assert moved is not None
    assert moved.circumference() == pytest.approx(factor * plain.circumference(), rel=1e-3)
    assert moved.center_x == pytest.approx(factor * plain.center_x + shift[0], abs=2e-3 * moved.semi_major)
    assert moved.center_y == pytest.approx(factor * plain.center_y + shift[1], abs=2e-3 * moved.semi_major)


@pytest.mark.parametrize("ratio", [0.6, 0.8, 0.97])
def test_noise_on_the_points_does_not_make_the_circumference_larger_or_smaller(ratio: float) -> None:
    rng = np.random.default_rng(0)
    true = Ellipse(144, 96, 80, 80 * ratio, 0.4)
    errors = []
    for _ in range(60):
        fit = ellipse_from_points(true.points(300) + rng.normal(0, 0.5, (300, 2)))
        assert fit is not None
        errors.append(fit.circumference() / true.circumference() - 1)
    assert abs(np.mean(errors)) < 5e-4
    assert np.abs(errors).max() < 5e-3


@pytest.mark.parametrize(
    "points",
    [
        np.empty((0, 2)),
        Ellipse(0, 0, 20, 10, 0).points(MIN_FIT_POINTS - 1),
        np.zeros((50, 2)),
        np.full((50, 2), 1e9),
        np.vstack((Ellipse(0, 0, 20, 10, 0).points(50), [[np.nan, 0.0]])),
        np.vstack((Ellipse(0, 0, 20, 10, 0).points(50), [[np.inf, 0.0]])),
    ],
    ids=["none", "too few", "one place", "one far place", "not a number", "infinite"],
)
def test_points_that_no_ellipse_fits_give_none(points: Points) -> None:
    assert ellipse_from_points(points) is None
    assert robust_ellipse_from_points(points) is None


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 40),
    kind=st.sampled_from(["cloud", "line", "grid", "two places", "huge", "tiny", "parabola"]),
)
def test_any_points_give_a_proper_ellipse_or_none(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    t = rng.uniform(-1, 1, count)
    points = {
        "cloud": rng.uniform(0, 300, (count, 2)),
        "line": np.stack((t, 3 * t + 1), axis=1),
        "grid": np.round(rng.uniform(0, 4, (count, 2))),
        "two places": np.where(t[:, None] > 0, (0.0, 0.0), (10.0, 5.0)),
        "huge": rng.uniform(-1e12, 1e12, (count, 2)),
        "tiny": rng.uniform(-1e-12, 1e-12, (count, 2)),
        "parabola": np.stack((t, t * t), axis=1),
    }[kind]
    robust = robust_ellipse_from_points(points)
    for ellipse in (ellipse_from_points(points), robust and robust.ellipse, robust and robust.core):
        if ellipse is None:
            continue
        values = (ellipse.center_x, ellipse.center_y, ellipse.semi_major, ellipse.semi_minor, ellipse.angle_rad)
        assert np.isfinite(values).all()
        assert ellipse.semi_major >= ellipse.semi_minor > 0
        assert 0 <= ellipse.angle_rad < math.pi
    if robust:
        assert robust.disagreement() >= 0


@SETTINGS
@given(
    ellipse=ellipses(least_ratio=0.6),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.15),
    offset=st.floats(0.1, 0.2),
    outwards=st.booleans(),
)
def test_a_dent_or_a_bulge_does_not_pull_the_core(
    ellipse: Ellipse,
    seed: int,
    share: float,
    offset: float,
    outwards: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    count = 300
    rng = np.random.default_rng(seed)
    points = _points(ellipse, np.arange(count) * 2 * math.pi / count)
    # Half a per cent of noise, as a real outline has, and one arc that is far off.
    points += rng.normal(0, 0.005 * ellipse.semi_minor, points.shape)
    wrong = (np.arange(count) + seed) % count < share * count
    centre = np.array([ellipse.center_x, ellipse.center_y])
    points[wrong] = centre + (points[wrong] - centre) * (1 + offset if outwards else 1 - offset)
    fit = robust_ellipse_from_points(points)
    assert fit is not None
    assert fit.core.circumference() == pytest.approx(ellipse.circumference(), rel=0.015)
    # The whole follows the arc, and the fit says by how much.
    error = abs(fit.ellipse.circumference() / ellipse.circumference() - 1)
    assert fit.disagreement() == pytest.approx(error, abs=0.017)


def test_stray_points_are_left_out() -> None:
    rng = np.random.default_rng(0)
    true = Ellipse(140, 90, 70, 55, 0.5)
    strays = rng.uniform(0, 280, (20, 2))
    strays = strays[np.abs(true.signed_distance(strays)) > 20]
    fit = robust_ellipse_from_points(np.vstack((true.points(200) + rng.normal(0, 0.1, (200, 2)), strays)))
    assert fit is not None
    _assert_alike(fit.ellipse, true, 0.1)
    _assert_alike(fit.core, true, 0.1)


def test_a_smooth_outline_is_of_one_mind() -> None:
    fit = robust_ellipse_from_points(Ellipse(10, 20, 30, 25, 1).points(100))
    assert fit is not None
    assert fit.core is fit.ellipse
    assert fit.disagreement() == 0


@SETTINGS
@given(
    ellipse=ellipses(least_ratio=0.5), seed=st.integers(0, 1000), share=st.floats(0.4, 1.0), noise=st.floats(0, 0.02)
)
def test_the_direct_fit_is_that_of_opencv(ellipse: Ellipse, seed: int, share: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    points = _points(ellipse, rng.uniform(0, share * 2 * math.pi, 200))
    # OpenCV computes in single precision, which is what the tolerance allows for.
    points = (points + rng.normal(0, noise * ellipse.semi_minor, points.shape)).astype(np.float32)
    found = ellipse_from_points(points.astype(np.float64))
    assert found is not None
    (x, y), axes, _ = cv2.fitEllipseDirect(points)
    size = found.semi_major
    np.testing.assert_allclose((found.center_x, found.center_y), (x, y), atol=3e-3 * size)
    np.testing.assert_allclose((found.semi_minor, found.semi_major), np.sort(axes) / 2, atol=3e-3 * size)


def _direct_fit_by_eigenvectors(points: Points) -> Points:
    """Conic of the direct fit as Halir and Flusser print it, with a general eigensolver."""
    x, y = points.T
    quadratic = np.stack((x * x, x * y, y * y), axis=1)
    linear = np.stack((x, y, np.ones_like(x)), axis=1)
    to_linear = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
    reduced = quadratic.T @ quadratic + quadratic.T @ linear @ to_linear
    _, vectors = np.linalg.eig(np.linalg.inv([[0, 0, 2], [0, -1, 0], [2, 0, 0]]) @ reduced)
    vectors = vectors.real
    best = vectors[:, np.argmax(4 * vectors[0] * vectors[2] - vectors[1] ** 2)]
    return np.concatenate((best, to_linear @ best))


@SETTINGS
@given(
    ellipse=ellipses(least_ratio=0.2), seed=st.integers(0, 1000), share=st.floats(0.3, 1.0), noise=st.floats(1e-4, 0.05)
)
def test_the_closed_form_solves_the_direct_fit(ellipse: Ellipse, seed: int, share: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    points = _points(ellipse, rng.uniform(0, share * 2 * math.pi, 100))
    points += rng.normal(0, noise * ellipse.semi_minor, points.shape)
    points = (points - points.mean(axis=0)) / ellipse.semi_major
    found = ellipse_from_points(points)
    assert found is not None
    conic = _direct_fit_by_eigenvectors(points)
    # The found ellipse's outline lies on the other's conic.
    on = found.points(40)
    x, y = on.T
    values = np.stack((x * x, x * y, y * y, x, y, np.ones_like(x)), axis=1) @ conic
    assert np.abs(values).max() < 1e-7 * np.abs(conic).max()


@SETTINGS
@given(ellipse=ellipses(), direction=st.floats(-10, 10))
def test_a_diameter_is_the_extent_between_parallel_tangents(ellipse: Ellipse, direction: float) -> None:
    along = _points(ellipse, np.linspace(0, 2 * math.pi, 20_001)) @ (math.cos(direction), math.sin(direction))
    assert ellipse.diameter(direction) == pytest.approx(np.ptp(along), rel=1e-6)
    assert ellipse.diameter(ellipse.angle_rad) == pytest.approx(2 * ellipse.semi_major)
    assert ellipse.diameter(ellipse.angle_rad + math.pi / 2) == pytest.approx(2 * ellipse.semi_minor)


@pytest.mark.parametrize(
    "scatter",
    [
        np.zeros((1, 6, 6)),
        np.full((1, 6, 6), np.nan),
        np.full((1, 6, 6), 1e300),
        np.eye(6)[None] * 1e-200,
        np.diag([1.0, 0, 0, 1, 1, 1])[None],
        np.diag([1.0, 1, 1, 1, 1, 0])[None],
    ],
    ids=["zero", "not a number", "huge", "tiny", "one direction", "singular"],
)
def test_a_degenerate_scatter_gives_no_conic_or_an_ellipse(scatter: Points) -> None:
    (conic,) = _conics(scatter)
    a, b, c = conic[:3]
    assert np.isnan(conic).all() or 4 * a * c > b * b


def _disc(shape: tuple[int, int], x: float, y: float, radius: float) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (radius - np.hypot(columns - x, rows - y)).astype(np.float32)


def _region(logits: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return (logits > 0).astype(np.uint8)


@pytest.mark.parametrize("value", [0.0, -1.0, -np.inf])
def test_where_nothing_is_positive_there_is_no_region(value: float) -> None:
    region = _region(np.full((20, 30), value))
    assert region.shape == (20, 30)
    assert not region.any()
    assert contour_points(np.full((20, 30), min(value, -1.0)), region).shape == (0, 2)


def test_a_region_of_everything_has_no_contour() -> None:
    logits = np.ones((300, 300), np.float32)
    region = _region(logits)
    # 90 000 pixels: more than 8 or 16 bits count.
    assert region.sum() == 90_000
    assert contour_points(logits, region).shape == (0, 2)


def test_one_pixel_has_a_contour_of_four_points_by_linear_interpolation() -> None:
    logits = np.full((5, 7), -1.0)
    logits[2, 3] = 3.0
    points = contour_points(logits, _region(logits))
    assert sorted(map(tuple, points.tolist())) == [(2.25, 2.0), (3.0, 1.25), (3.0, 2.75), (3.75, 2.0)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    x=st.floats(60, 100),
    y=st.floats(50, 70),
    semi_major=st.floats(20, 45),
    ratio=st.floats(0.6, 1.0),
    angle=st.floats(0, math.pi, exclude_max=True),
)
def test_the_contour_of_a_soft_mask_is_the_ellipse_to_a_twentieth_of_a_pixel(
    x: float, y: float, semi_major: float, ratio: float, angle: float
) -> None:
    true = Ellipse(x, y, semi_major, semi_major * ratio, angle)
    rows, columns = np.mgrid[:120, :160].astype(float)
    u = ((columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)) / true.semi_major
    v = ((rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)) / true.semi_minor
    logits = (12 * (1 - np.hypot(u, v))).astype(np.float32)
    points = contour_points(logits, _region(logits))
    assert _nearest(true, points).max() < 0.05
    fit = robust_ellipse_from_points(points)
    assert fit is not None
    _assert_alike(fit.ellipse, true, 0.05)


@pytest.mark.parametrize(("x", "y", "radius"), [(80.0, 60.0, 40.0), (79.37, 60.81, 33.3), (81.9, 58.2, 47.7)])
def test_the_contour_of_a_drawn_and_blurred_mask_is_the_ellipse_to_a_twentieth_of_a_pixel(
    x: float, y: float, radius: float
) -> None:
    true = Ellipse(x, y, radius, 0.8 * radius, 0.6)
    zoom = 8
    # Pixel centres are whole numbers, so the corner of the first pixel is at -0.5.
    large = np.zeros((120 * zoom, 160 * zoom), np.uint8)
    corners = np.round(((true.points(720) + 0.5) * zoom - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(large, [corners], (1,), cv2.LINE_8, 8)
    share = large.reshape(120, zoom, 160, zoom).mean(axis=(1, 3))
    logits = cv2.GaussianBlur(share, (0, 0), 1.0) - 0.5
    fit = robust_ellipse_from_points(contour_points(logits, _region(logits)))
    assert fit is not None
    # Filling draws the pixels on the edge of the polygon too: an eighth of a pixel here is one of theirs.
    _assert_alike(fit.ellipse, true.grown(0.5 / zoom), 0.05)


def test_a_region_that_the_border_cuts_has_its_true_edge_only() -> None:
    logits = _disc((60, 100), 95, 30, 20)
    points = contour_points(logits, _region(logits))
    assert np.abs(np.hypot(points[:, 0] - 95, points[:, 1] - 30) - 20).max() < 0.05
    assert points[:, 0].max() <= 99
    # No point stands for the cut itself: that would be a straight line at x = 99.
    assert (points[:, 0] > 98.5).sum() <= 4


@SETTINGS
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_contour_points_of_noise_lie_between_neighbouring_pixels(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (cv2.GaussianBlur(rng.normal(size=(20, 26)), (0, 0), rng.uniform(0.4, 3)) * scale).astype(np.float32)
    region = _region(logits)
    points = contour_points(logits, region)
    assert np.isfinite(points).all()
    assert ((points >= 0) & (points <= (25, 19))).all()
    # Each lies on a line of the grid, with the region at one of its two neighbours and not at the other.
    below, above = np.floor(points).astype(int), np.ceil(points).astype(int)
    assert (below == above).any(axis=1).all()
    inside = region.astype(bool)
    between = (below != above).any(axis=1)
    ends = inside[below[:, 1], below[:, 0]] != inside[above[:, 1], above[:, 0]]
    assert ends[between].all()
