"""The head's outline: true to the drawn head whatever the pixels, or refused with a reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.biometry.head import HEAD_QUANTITIES, HEAD_SHAPE, measure_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.biometry.quantities import BPD, CEPHALIC_INDEX, HC, OFD
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox, preprocess
from edgefetal_runtime.scale import MAX_MM_PER_PX, MIN_MM_PER_PX, NOT_GIVEN, NoScale, Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

SPEC = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)
SHAPE = (540, 800)
HEAD_PX = (410.0, 260.0, 230.0, 180.0, 0.3)
SCALE = Scale(0.12, 0.12, origin="test")


def _perimeter(semi_1: float, semi_2: float) -> float:
    t = np.linspace(0, 2 * math.pi, 4096, endpoint=False)
    return float(2 * math.pi * np.hypot(semi_1 * np.sin(t), semi_2 * np.cos(t)).mean())


def _hc(outline: Outline | Abstained) -> float:
    assert isinstance(outline, Outline), outline
    measured = measure_head(outline)[HC]
    assert isinstance(measured, Measured), measured
    assert measured.unit == "mm"
    return measured.value


@pytest.fixture(scope="session")
def outlined(head_logits: Callable[..., npt.NDArray[np.float32]]) -> Callable[..., Outline | Abstained]:
    """Outline a head, drawn in frame pixels, by the logits of a network that sees it exactly."""

    def outline(
        head_px: tuple[float, float, float, float, float] = HEAD_PX,
        shape: tuple[int, int] = SHAPE,
        scale: Scale | NoScale = SCALE,
        spec: PreprocessSpec = SPEC,
    ) -> Outline | Abstained:
        return outline_round(head_logits(head_px, shape, spec), letterbox(*shape, spec), scale, HEAD_SHAPE)

    return outline


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    height=st.integers(100, 900),
    proportion=st.floats(0.7, 1.8),
    size=st.floats(0.15, 0.4),
    ratio=st.floats(0.65, 0.91),
    angle=st.floats(0, math.pi),
    across=st.floats(-0.05, 0.05),
    mm_per_px=st.floats(0.05, 0.4),
)
def test_hc_is_the_perimeter_of_the_drawn_head(
    outlined: Callable[..., Outline | Abstained],
    height: int,
    proportion: float,
    size: float,
    ratio: float,
    angle: float,
    across: float,
    mm_per_px: float,
) -> None:
    width = round(height * proportion)
    semi_major = size * min(height, width)
    head = (width * (0.5 + across), height * (0.5 - across), semi_major, ratio * semi_major, angle)
    outline = outlined(head, (height, width), Scale(mm_per_px, mm_per_px, origin="test"))
    assert isinstance(outline, Outline)
    hc_mm = _perimeter(semi_major, ratio * semi_major) * mm_per_px
    assert outline.ellipse.circumference() == pytest.approx(hc_mm, rel=2e-3)
    measured = measure_head(outline)
    assert tuple(measured) == HEAD_QUANTITIES
    found_mm = {
        HC: outline.ellipse.circumference(),
        BPD: 2 * outline.ellipse.semi_minor,
        OFD: 2 * outline.ellipse.semi_major,
    }
    true_mm = {HC: hc_mm, BPD: 2 * ratio * semi_major * mm_per_px, OFD: 2 * semi_major * mm_per_px}
    for quantity, value in found_mm.items():
        assert value == pytest.approx(true_mm[quantity], rel=5e-3)
        given_mm = quantity.least <= value <= quantity.most
        assert isinstance(measured[quantity], Measured) == given_mm
    assert measured[CEPHALIC_INDEX] == Measured(pytest.approx(ratio, abs=5e-3), "1")  # type: ignore[arg-type]


def _drawn(shape: tuple[int, int], sizes_mm: tuple[float, float], scale: Scale, angle: float) -> npt.NDArray[np.uint8]:
    """A picture of a bright head in the middle of a dark field, its edge half a millimetre soft."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    x = (columns - (shape[1] - 1) / 2) * scale.x_mm_per_px
    y = (rows - (shape[0] - 1) / 2) * scale.y_mm_per_px
    u = (x * math.cos(angle) + y * math.sin(angle)) / sizes_mm[0]
    v = (y * math.cos(angle) - x * math.sin(angle)) / sizes_mm[1]
    outside_mm = (np.hypot(u, v) - 1) * sizes_mm[1]
    grey: npt.NDArray[np.uint8] = np.round(20 + 200 / (1 + np.exp(np.clip(outside_mm / 0.5, -50, 50)))).astype(np.uint8)
    return grey


def _outline_by_grey(frame: npt.NDArray[np.uint8], scale: Scale | NoScale) -> Outline | Abstained:
    """Take the way of a frame with a network that marks what is brighter than the middle grey."""
    tensor, box = preprocess(frame, SPEC)
    grey = (tensor[0, 0] * SPEC.std + SPEC.mean) * 255
    return outline_round((grey - 120).astype(np.float32), box, scale, HEAD_SHAPE)


SIZES_MM = (32.0, 25.0)
HC_MM = _perimeter(*SIZES_MM)
# From about the network's own size to six times that; 60 x 90 mm of tissue.
WIDTHS_PX = [150, 288, 400, 500, 576, 577, 800, 1100, 1152, 1400, 1731]


@pytest.mark.parametrize("width", WIDTHS_PX)
def test_hc_does_not_change_with_the_size_of_the_picture(width: int) -> None:
    height = round(width * 0.7)
    scale = Scale(90 / width, 90 / width, origin="test")
    outline = _outline_by_grey(_drawn((height, width), SIZES_MM, scale, 0.4), scale)
    assert _hc(outline) == pytest.approx(HC_MM, rel=2e-3)


@pytest.mark.parametrize("factor", [0.45, 0.8, 1.25, 2.0])
@pytest.mark.parametrize("turned", [False, True])
def test_hc_does_not_change_when_a_picture_is_resampled(factor: float, turned: bool) -> None:  # noqa: FBT001 - a parameter
    scale = Scale(0.12, 0.12, origin="test")
    frame = _drawn((540, 800), SIZES_MM, scale, 0.4)
    frame = np.ascontiguousarray(frame.T) if turned else frame
    size = (round(frame.shape[1] * factor), round(frame.shape[0] * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resampled = np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8)
    new_scale = Scale(0.12 * frame.shape[1] / size[0], 0.12 * frame.shape[0] / size[1], origin="test")
    hc_mm = _hc(_outline_by_grey(frame, scale))
    assert hc_mm == pytest.approx(HC_MM, rel=2e-3)
    assert _hc(_outline_by_grey(resampled, new_scale)) == pytest.approx(hc_mm, rel=2e-3)


@pytest.mark.parametrize(("x", "y"), [(0.10, 0.15), (0.15, 0.10), (0.12, 0.24), (0.2, 0.09)])
@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 2.5])
def test_unequal_pixels_do_no_harm(x: float, y: float, angle: float) -> None:
    scale = Scale(x, y, origin="test")
    shape = (round(80 / y), round(90 / x))
    outline = _outline_by_grey(_drawn(shape, SIZES_MM, scale, angle), scale)
    assert _hc(outline) == pytest.approx(HC_MM, rel=2e-3)
    assert isinstance(outline, Outline)
    assert measure_head(outline)[CEPHALIC_INDEX] == Measured(pytest.approx(25 / 32, abs=4e-3), "1")  # type: ignore[arg-type]


def test_hc_grows_with_the_pixel_size(outlined: Callable[..., Outline | Abstained]) -> None:
    once, twice = (_hc(outlined(scale=Scale(size, size, origin="test"))) for size in (0.1, 0.2))
    assert twice == pytest.approx(2 * once, rel=1e-4)


def test_the_contour_is_given_in_frame_pixels_for_drawing() -> None:
    scale = Scale(0.10, 0.15, origin="test")
    frame = _drawn((540, 900), SIZES_MM, scale, 0.7)
    outline = _outline_by_grey(frame, scale)
    assert isinstance(outline, Outline)
    # On the contour the drawing is half bright.
    x, y = outline.contour_px.astype(np.float32).T
    grey = cv2.remap(frame, x[None], y[None], cv2.INTER_LINEAR)
    assert np.abs(grey.astype(int) - 120).max() < 25
    assert outline.contour_px.shape[0] >= 64


def test_without_a_scale_there_are_no_millimetres_but_an_index(
    outlined: Callable[..., Outline | Abstained],
) -> None:
    outline = outlined(scale=NOT_GIVEN)
    assert isinstance(outline, Outline)
    assert outline.extent == pytest.approx(_perimeter(230, 180), rel=2e-3)
    measured = measure_head(outline)
    for quantity in (HC, BPD, OFD):
        assert measured[quantity] == Abstained(NOT_GIVEN.reason)
    assert "--mm-per-px" in NOT_GIVEN.reason
    assert "--scale-csv" in NOT_GIVEN.reason
    assert measured[CEPHALIC_INDEX] == Measured(pytest.approx(180 / 230, abs=4e-3), "1")  # type: ignore[arg-type]


def test_the_reason_why_there_is_no_scale_is_that_of_the_measures(
    outlined: Callable[..., Outline | Abstained],
) -> None:
    outline = outlined(scale=NoScale("the depth was changed; wait for the ruler"))
    assert isinstance(outline, Outline)
    assert measure_head(outline)[HC] == Abstained("the depth was changed; wait for the ruler")


def test_a_turned_or_moved_head_measures_the_same(outlined: Callable[..., Outline | Abstained]) -> None:
    plain = _hc(outlined((400.0, 270.0, 200.0, 160.0, 0.0)))
    for x, y, angle in ((400.0, 270.0, 0.4), (413.3, 255.7, 1.2), (380.2, 281.1, 2.0), (401.9, 268.8, 3.0)):
        assert _hc(outlined((x, y, 200.0, 160.0, angle))) == pytest.approx(plain, rel=1e-3)


def _head_mm(semi_major: float, semi_minor: float) -> Outline:
    return Outline(Ellipse(0, 0, semi_major, semi_minor, 0), SCALE, np.zeros((4, 2)), 1.0, 0.0, 1.0, 0.0)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(hc_mm=st.floats(44, 346), mm_per_px=st.floats(0.05, 0.4), factor=st.sampled_from([0.1, 10.0]))
@example(hc_mm=346.0, mm_per_px=0.12, factor=0.1)
@example(hc_mm=44.0, mm_per_px=0.12, factor=10.0)
def test_a_scale_that_is_tenfold_wrong_never_gives_millimetres(hc_mm: float, mm_per_px: float, factor: float) -> None:
    # Centimetres for millimetres, over all of HC18's heads and pixel sizes.
    wrong = mm_per_px * factor
    if not MIN_MM_PER_PX <= wrong <= MAX_MM_PER_PX:
        return
    radius_mm = hc_mm / (2 * math.pi) * factor
    measured = measure_head(_head_mm(radius_mm, radius_mm))[HC]
    assert isinstance(measured, Abstained)
    assert measured.reason.endswith("check the pixel size")


@pytest.mark.parametrize(
    ("hc_mm", "given"), [(39.9, False), (44.0, True), (175.0, True), (346.0, True), (400.1, False)]
)
def test_the_heads_of_hc18_are_all_within_the_bounds_and_little_else(hc_mm: float, given: bool) -> None:  # noqa: FBT001 - a parameter
    radius_mm = hc_mm / (2 * math.pi)
    measured = measure_head(_head_mm(radius_mm, radius_mm))[HC]
    if given:
        assert measured == Measured(pytest.approx(hc_mm), "mm")  # type: ignore[arg-type]
    else:
        assert isinstance(measured, Abstained)
        assert "outside 40 to 400; check the pixel size" in measured.reason


def test_a_cephalic_index_of_no_head_is_refused() -> None:
    measured = measure_head(_head_mm(60.0, 30.0))[CEPHALIC_INDEX]
    assert measured == Abstained("cephalic_index would be 0.5, outside 0.6 to 1; find a clearer plane")


def test_an_abstention_is_falsy_and_a_measurement_truthy() -> None:
    assert not Abstained("why")
    assert Measured(0.0, "mm")
