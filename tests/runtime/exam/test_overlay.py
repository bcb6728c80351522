"""The picture that shows what was measured: the frame as it was, the outline where it is, the text below."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.exam.overlay import draw_overlay

OUTLINE = Ellipse(200.3, 130.7, 90.0, 70.0, 0.4)
LINES = ("HC 175.0 mm   cephalic index 0.78", "frame 4 at 0.16 s")


def _frame(shape: tuple[int, int] = (270, 400)) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 60, shape, dtype=np.uint8)


def test_the_frame_is_unchanged_away_from_the_outline_and_the_input_everywhere() -> None:
    frame = _frame()
    before = frame.copy()
    picture = draw_overlay(frame, OUTLINE.points(128), LINES)
    rows, columns = np.mgrid[:270, :400]
    away = np.abs(OUTLINE.signed_distance(np.stack((columns, rows), axis=-1).astype(float))) > 3
    np.testing.assert_array_equal(picture[:270][away], np.repeat(frame[..., None], 3, axis=2)[away])
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("shape", [(270, 400), (1080, 1600)])
def test_the_outline_is_drawn_in_colour_where_it_is_and_closed(shape: tuple[int, int]) -> None:
    zoom = shape[0] / 270
    outline = Ellipse(200.3 * zoom, 130.7 * zoom, 90.0 * zoom, 70.0 * zoom, 0.4)
    picture = draw_overlay(np.zeros(shape, np.uint8), outline.points(128), LINES).astype(int)
    x, y = np.round(outline.points(720)).astype(int).T
    assert (picture[y, x].max(axis=1) > 60).mean() > 0.98
    assert (np.ptp(picture[y, x], axis=1) > 20).mean() > 0.98
    rows, columns = np.nonzero(picture[: shape[0]].any(axis=2))
    distance = outline.signed_distance(np.stack((columns, rows), axis=1).astype(float))
    assert np.abs(distance).max() < 3 * max(1, zoom)
    # As much of the line lies within as without.
    assert abs(np.average(distance, weights=picture[rows, columns].sum(axis=1))) < 0.25


@pytest.mark.parametrize("lines", [(), LINES[:1], LINES, (*LINES, "third")])
def test_the_band_below_grows_with_the_text_and_holds_it(lines: tuple[str, ...]) -> None:
    picture = draw_overlay(_frame(), OUTLINE.points(128), lines)
    heights = [draw_overlay(_frame(), OUTLINE.points(128), LINES[:1] * n).shape[0] for n in range(5)]
    assert picture.shape == (heights[len(lines)], 400, 3)
    assert all(lower < higher for lower, higher in itertools.pairwise(heights))
    band = picture[270:]
    written = np.nonzero(band.any(axis=(1, 2)))[0]
    if lines:
        # No letter is cut at the top or at the bottom.
        assert written.min() > 0
        assert written.max() < len(band) - 1
    else:
        assert len(written) == 0


@pytest.mark.parametrize("width", [16, 17, 40, 120, 250, 400, 600])
def test_a_long_line_shrinks_to_the_width_of_the_frame(width: int) -> None:
    line = "HC not given: the pixel size is unknown; give --mm-per-px, or a table with --scale-csv, to have millimetres"
    triangle = np.array([[2.0, 2.0], [9.0, 2.0], [9.0, 9.0]])
    picture = draw_overlay(np.zeros((40, width), np.uint8), triangle, (line,))
    assert picture.shape[1] == width
    written = np.nonzero(picture[40:].any(axis=(0, 2)))[0]
    # The last letters are there, and the margin after them.
    assert written.size == 0 or written.max() < width - 1
    if width >= 250:
        assert written.max() > 0.8 * width


def test_an_outline_that_leaves_the_frame_is_drawn_as_far_as_it_goes() -> None:
    outline = Ellipse(380.0, 20.0, 90.0, 70.0, 0.4)
    picture = draw_overlay(np.zeros((270, 400), np.uint8), outline.points(128), ())
    drawn = picture[:270].any(axis=2)
    assert drawn[:, -1].any()
    assert drawn[0].any()
    assert not drawn[200:].any()
