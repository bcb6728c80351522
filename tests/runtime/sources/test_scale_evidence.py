"""A pixel size is believed where two evidences agree within 1 %, and void where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.scale import CALIPER_RELATIVE_SD, NoScale, Scale
from edgefetal_runtime.sources.picture import read_grey
from edgefetal_runtime.sources.ruler import Ruler, read_ruler
from edgefetal_runtime.sources.scale_evidence import (
    PITCHES_MM,
    image_depth_px,
    scale_from_depth,
    scale_from_evidence,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def _ruler(period_px: float, axis: str = "y", long_every: int | None = None) -> Ruler:
    return Ruler(axis, period_px, 0.02, 10.0, 16, 15, long_every, (780, 790))


def _screen(
    pitch_mm: float, mm_per_px: float, depth_mm: float, *, long_every: int | None = None, text: bool = False
) -> npt.NDArray[np.uint8]:
    """A screen: a bright image of one depth in the middle, a ruler as long at the right, and maybe text."""
    rng = np.random.default_rng(0)
    depth_px = round(depth_mm / mm_per_px)
    picture = np.zeros((depth_px + 40, 700), np.uint8)
    picture[20 : 20 + depth_px, 100:600] = rng.integers(30, 90, (depth_px, 500), dtype=np.uint8)
    for number in range(int(depth_mm / pitch_mm + 1e-6) + 1):
        row = 20 + round(number * pitch_mm / mm_per_px)
        picture[row : row + 2, 660 : 670 if long_every and number % long_every == 0 else 665] = 220
    if text:
        cv2.putText(picture, "MI 0.9", (10, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
        cv2.putText(picture, "4 Aug", (300, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    return picture


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pitch_mm=st.sampled_from(PITCHES_MM), period_px=st.floats(12, 34), error=st.floats(-0.3, 0.3))
def test_a_figure_is_confirmed_by_a_ruler_that_agrees_within_one_percent_and_voided_by_any_other(
    pitch_mm: float, period_px: float, error: float
) -> None:
    right = pitch_mm / period_px
    stated = Scale(1.1 * right * (1 + error), right * (1 + error), "command line", 0.001)
    judged = scale_from_evidence([_ruler(period_px)], stated)
    disagreement = abs(1 / (1 + error) - 1)
    assert bool(judged) == (disagreement <= 0.01)
    if isinstance(judged, NoScale):
        assert "command line" in judged.reason
        assert "ruler" in judged.reason
    else:
        assert (judged.x_mm_per_px, judged.y_mm_per_px) == (stated.x_mm_per_px, stated.y_mm_per_px)
        assert judged.relative_uncertainty >= max(disagreement - 1e-9, 0.001)
        assert judged.origin.startswith(
            f"command line, confirmed down the picture only, by the ruler ({pitch_mm:g} mm marks"
        )


def test_a_ruler_across_judges_the_width_of_pixels() -> None:
    stated = Scale(0.2, 0.3, "command line")
    assert scale_from_evidence([_ruler(25.0, "x")], stated)
    assert not scale_from_evidence([_ruler(25.0, "y")], stated)


def test_the_origin_names_the_axes_that_are_confirmed_and_no_other() -> None:
    stated = Scale(0.2, 0.1, "command line")
    down, across = _ruler(50.0), _ruler(25.0, "x")
    by_down = "the ruler (5 mm marks, 50.00 px apart)"
    by_across = "the ruler (5 mm marks, 25.00 px apart)"
    for rulers, says in (
        ([down], f"command line, confirmed down the picture only, by {by_down}"),
        ([across], f"command line, confirmed across the picture only, by {by_across}"),
        (
            [down, across],
            f"command line, confirmed down the picture by {by_down} and across the picture by {by_across}",
        ),
    ):
        judged = scale_from_evidence(rulers, stated)
        assert isinstance(judged, Scale)
        assert judged.origin == says
    assert scale_from_evidence([], stated) == stated


def test_a_ruler_across_that_contradicts_voids_what_the_one_down_confirms() -> None:
    judged = scale_from_evidence([_ruler(50.0), _ruler(37.0, "x")], Scale(0.2, 0.2, "command line"))
    assert isinstance(judged, NoScale)
    assert (
        "the ruler across the picture (marks 37.00 px apart) and command line (0.2 mm per px across)" in judged.reason
    )


@pytest.mark.parametrize(
    ("long_every", "pitches_mm"), [(None, {1, 2, 5, 10}), (2, {5}), (5, {1, 2, 10}), (10, {1, 5}), (3, {1, 2, 5, 10})]
)
def test_longer_marks_leave_fewer_distances(long_every: int | None, pitches_mm: set[int]) -> None:
    confirmed = {
        pitch
        for pitch in (1, 2, 5, 10)
        if scale_from_evidence([_ruler(40.0, long_every=long_every)], Scale(pitch / 40, pitch / 40, "test"))
    }
    assert confirmed == pitches_mm


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("pitch_mm", "mm_per_px", "depth_mm"), [(5, 0.15, 80), (10, 0.3, 160), (2, 0.1, 50), (1, 0.05, 25), (5, 0.21, 120)]
)
def test_depth_and_ruler_together_give_the_pixel_size(
    pitch_mm: float,
    mm_per_px: float,
    depth_mm: float,
    text: bool,  # noqa: FBT001 - parametrised
) -> None:
    scale, ruler = scale_from_depth(_screen(pitch_mm, mm_per_px, depth_mm, text=text), depth_mm)
    assert ruler
    assert isinstance(scale, Scale)
    assert scale.y_mm_per_px == scale.x_mm_per_px == pytest.approx(mm_per_px, rel=0.004)
    assert scale.relative_uncertainty >= CALIPER_RELATIVE_SD
    assert f"the depth of {depth_mm:g} mm" in scale.origin
    assert "square pixels taken for granted" in scale.origin


@settings(max_examples=60, deadline=None, derandomize=True)
@given(told=st.floats(0.3, 3.5))
def test_a_depth_that_is_not_the_machines_gives_no_scale_where_longer_marks_tell_the_distance(told: float) -> None:
    scale, _ = scale_from_depth(_screen(5, 0.2, 100, long_every=2), 100 * told)
    assert bool(scale) == (abs(told - 1) < 0.0095) or abs(abs(told - 1) - 0.01) < 0.004


@pytest.mark.parametrize("told", [0.9, 0.95, 1.03, 1.1, 1.5, 3.0])
def test_a_wrong_depth_gives_no_scale_with_plain_marks(told: float) -> None:
    scale, ruler = scale_from_depth(_screen(5, 0.2, 100), 100 * told)
    assert ruler
    assert not scale


def test_a_depth_of_twice_the_true_one_is_seen_through_only_where_longer_marks_tell_the_distance() -> None:
    """The one slip that plain marks cannot show, and that docs/scale.md names."""
    assert not scale_from_depth(_screen(5, 0.2, 100, long_every=2), 200)[0]
    believed, _ = scale_from_depth(_screen(5, 0.2, 100), 200)
    assert isinstance(believed, Scale)
    assert "(10 mm marks" in believed.origin


def test_a_ruler_that_is_longer_or_shorter_than_the_depth_gives_no_scale() -> None:
    picture = _screen(5, 0.2, 100)
    picture[270:, 650:] = 0  # the image is 100 mm deep, and its ruler ends at 50
    scale, ruler = scale_from_depth(picture, 100)
    assert ruler
    assert isinstance(scale, NoScale)
    assert "spans 45 mm, which does not suit the depth of 100 mm" in scale.reason


def test_a_picture_without_ruler_or_image_has_no_scale() -> None:
    scale, ruler = scale_from_depth(np.zeros((540, 800), np.uint8), 100)
    assert ruler is None
    assert isinstance(scale, NoScale)
    assert "no ruler can be read" in scale.reason
    picture = _screen(5, 0.2, 100)
    picture[:, :650] = 0
    bare = read_ruler(picture)
    assert isinstance(bare, Ruler)
    assert image_depth_px(picture, bare) is None
    assert not scale_from_depth(picture, 100)[0]


def test_rulers_that_show_pixels_which_are_not_square_give_no_scale() -> None:
    picture = _screen(5, 0.2, 100)
    for number in range(20):
        column = round(40 + number * 5 / 0.2 * 0.75)
        picture[4:9, column : column + 2] = 220
    scale, _ = scale_from_depth(picture, 100)
    assert isinstance(scale, NoScale)
    assert "not square" in scale.reason


def test_a_ruler_across_that_agrees_is_named_as_what_shows_pixels_to_be_square() -> None:
    picture = _screen(5, 0.2, 100)
    for number in range(20):
        column = round(40 + number * 5 / 0.2)
        picture[4:9, column : column + 2] = 220
    scale, _ = scale_from_depth(picture, 100)
    assert isinstance(scale, Scale)
    assert scale.origin.endswith("pixels square by the ruler across")


def test_an_image_that_a_dark_head_cuts_in_two_is_measured_whole() -> None:
    picture = _screen(5, 0.2, 100)
    picture[150:320, 100:600] = 0
    ruler = read_ruler(picture)
    assert isinstance(ruler, Ruler)
    assert image_depth_px(picture, ruler) == pytest.approx(500, abs=3)


def test_a_real_screen_with_its_depth_gives_the_known_pixel_size_and_no_other(shared_data: Path) -> None:
    picture = read_grey(shared_data / "handheld" / "sonosite-anon-eye1.jpg")
    scale, _ = scale_from_depth(picture, 45)
    assert isinstance(scale, Scale)
    assert scale.y_mm_per_px == pytest.approx(0.0758, rel=0.001)
    for wrong_mm in (20, 22.5, 40, 44, 46, 50, 60, 90, 225, 400):
        assert not scale_from_depth(picture, wrong_mm)[0], wrong_mm


def test_zoomed_pictures_never_take_the_depth_setting_for_what_they_show(shared_data: Path) -> None:
    # GE prints the depth setting (here read by eye), and these pictures are zoomed: 15.2 cm are not on the screen.
    picture = read_grey(shared_data / "sononet" / "example_images" / "BRAIN-CB.png")
    assert not scale_from_depth(picture, 152)[0]
