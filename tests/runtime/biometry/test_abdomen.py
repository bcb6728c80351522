"""The abdomen: its circumference always, its two diameters only where the front is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.abdomen import ABDOMEN_SHAPE, measure_abdomen
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.biometry.quantities import AC, APAD, TAD
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale

SCALE = Scale(0.2, 0.2, origin="test")


def _outline(ellipse: Ellipse, scale: Scale | NoScale = SCALE) -> Outline:
    return Outline(ellipse, scale, np.zeros((4, 2)), 1.0, 0.0, 1.0, 0.0)


def test_a_drawn_abdomen_measures_what_was_drawn() -> None:
    spec = PreprocessSpec(height_px=192, width_px=288, mean=0.0, std=1.0)
    drawn = Ellipse(150.0, 90.0, 70.0, 62.0, 0.3)
    u, v = drawn.normalised(*np.meshgrid(np.arange(288.0), np.arange(192.0)))
    outline = outline_round(
        (20 * (1 - np.hypot(u, v))).astype(np.float32),
        letterbox(192, 288, spec),
        Scale(0.8, 0.8, origin="test"),
        ABDOMEN_SHAPE,
    )
    assert isinstance(outline, Outline)
    ac = measure_abdomen(outline)[AC]
    assert isinstance(ac, Measured)
    assert ac.value == pytest.approx(0.8 * drawn.circumference(), rel=2e-3)


def test_without_the_direction_of_the_front_no_diameter_is_named() -> None:
    measured = measure_abdomen(_outline(Ellipse(0, 0, 45.0, 40.0, 0.3)))
    assert isinstance(measured[AC], Measured)
    for quantity in (APAD, TAD):
        value = measured[quantity]
        assert isinstance(value, Abstained)
        assert "front of the abdomen" in value.reason


@settings(max_examples=100, deadline=None, derandomize=True)
@given(angle=st.floats(0, math.pi, exclude_max=True), front=st.floats(-math.pi, math.pi), ratio=st.floats(0.7, 1.0))
def test_the_diameters_are_along_and_across_the_front(angle: float, front: float, ratio: float) -> None:
    outline = _outline(Ellipse(3.0, 4.0, 45.0, 45.0 * ratio, angle))
    apad, tad = (measure_abdomen(outline, anterior_rad=front)[quantity] for quantity in (APAD, TAD))
    assert isinstance(apad, Measured)
    assert isinstance(tad, Measured)
    points = outline.ellipse.points(20_000)
    assert apad.value == pytest.approx(np.ptp(points @ (math.cos(front), math.sin(front))), rel=1e-5)
    assert tad.value == pytest.approx(np.ptp(points @ (-math.sin(front), math.cos(front))), rel=1e-5)
    # The other way round, or looking from behind, they are the same or swapped.
    behind = measure_abdomen(outline, anterior_rad=front + math.pi)
    aside = measure_abdomen(outline, anterior_rad=front + math.pi / 2)
    assert behind[APAD] == Measured(pytest.approx(apad.value), "mm")  # type: ignore[arg-type]
    assert aside[APAD] == Measured(pytest.approx(tad.value), "mm")  # type: ignore[arg-type]


@pytest.mark.parametrize("front", [None, 0.3])
def test_without_a_scale_every_measure_has_a_reason(front: float | None) -> None:
    measured = measure_abdomen(_outline(Ellipse(0, 0, 45.0, 40.0, 0.3), NOT_GIVEN), anterior_rad=front)
    assert measured[AC] == Abstained(NOT_GIVEN.reason)
    assert set(measured) == {AC, APAD, TAD}
    assert all(isinstance(value, Abstained) and value.reason for value in measured.values())


@pytest.mark.parametrize("factor", [0.1, 10.0])
@pytest.mark.parametrize("ac_mm", [50.0, 150.0, 380.0])
def test_centimetres_for_millimetres_are_refused(ac_mm: float, factor: float) -> None:
    radius_mm = ac_mm / (2 * math.pi) * factor
    measured = measure_abdomen(_outline(Ellipse(0, 0, radius_mm, radius_mm, 0)), anterior_rad=0.0)
    assert all(isinstance(value, Abstained) and "check the pixel size" in value.reason for value in measured.values())
