"""A straight edge hides exactly the share of a head that it should, in a direction that the name decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_calibration.cut import cut_picture, visible
from edgefetal_calibration.evaluate import ellipse_mask
from edgefetal_runtime.biometry.ellipse import Ellipse

HEAD = Ellipse(center_x=150.0, center_y=110.0, semi_major=90.0, semi_minor=65.0, angle_rad=0.4)
SHAPE = (220, 300)
COLUMNS, ROWS = np.arange(SHAPE[1], dtype=float), np.arange(SHAPE[0], dtype=float)[:, None]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(share=st.floats(0.02, 0.9), direction=st.floats(0, 2 * math.pi))
def test_the_share_of_the_head_that_is_hidden_is_the_one_asked_for(share: float, direction: float) -> None:
    head = ellipse_mask(HEAD, SHAPE)
    seen = visible(HEAD, COLUMNS, ROWS, share, direction)
    assert (head & ~seen).sum() / head.sum() == pytest.approx(share, abs=0.01)


def test_nothing_hidden_leaves_the_whole_picture() -> None:
    assert visible(HEAD, COLUMNS, ROWS, 0.0, 1.0).all()


def test_the_picture_is_black_beyond_the_edge_and_as_it_was_before_it() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, SHAPE, dtype=np.uint8)
    cut = cut_picture(pixels, HEAD, 0.3, "001_HC.png")
    assert cut.dtype == np.uint8
    assert set(np.unique(np.where(cut == 0, 0, cut == pixels))) <= {0, 1}
    assert 0.05 < (cut == 0).mean() < 0.6


def test_the_name_decides_the_direction_and_nothing_else_does() -> None:
    pixels = np.full(SHAPE, 100, np.uint8)
    first, again, other = (cut_picture(pixels, HEAD, 0.3, name) for name in ("a.png", "a.png", "b.png"))
    assert (first == again).all()
    assert (first != other).any()
