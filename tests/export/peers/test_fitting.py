"""OpenCV's ellipse on drawn ones, and the rule of the largest outline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_calibration.datasets.masks import ellipse_mask
from edgefetal_export.peers.fitting import circumference, fit_largest, largest
from edgefetal_runtime.biometry.ellipse import Ellipse


@given(
    semi=st.floats(20, 70), ratio=st.floats(0.7, 1.0), angle=st.floats(0, 3.1), x=st.floats(75, 85), y=st.floats(75, 85)
)
def test_a_drawn_ellipse_is_found(semi: float, ratio: float, angle: float, x: float, y: float) -> None:
    drawn = Ellipse(x, y, semi, ratio * semi, angle)
    fitted = fit_largest(ellipse_mask(drawn, (160, 160)))
    assert fitted is not None
    area, length = fitted
    # OpenCV goes through the centres of the outermost pixels, half a pixel inside.
    assert length == pytest.approx(drawn.circumference(), abs=2 * math.pi * 1.2)
    assert area == pytest.approx(math.pi * semi * ratio * semi, rel=0.08)


def test_only_the_largest_region_counts() -> None:
    small, large = Ellipse(30, 30, 12, 10, 0.0), Ellipse(100, 100, 40, 30, 0.0)
    mask = ellipse_mask(small, (160, 160)) | ellipse_mask(large, (160, 160))
    assert fit_largest(mask) == fit_largest(ellipse_mask(large, (160, 160)))


@pytest.mark.parametrize("marked", [0, 1, 2])
def test_too_little_is_no_ellipse(marked: int) -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[5, 5 : 5 + marked] = True
    assert fit_largest(mask) is None


def test_a_circle_has_its_circumference() -> None:
    assert circumference(10.0, 10.0) == pytest.approx(20 * math.pi)


def test_the_largest_outline_is_the_answer() -> None:
    assert largest([(10.0, 1.0), (30.0, 2.0), (20.0, 3.0)]) == 2.0
    assert largest([]) is None
