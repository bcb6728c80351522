"""The head's outline: true to the drawn head whatever the pixels, or refused with a reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.biometry.head import MAX_HC_MM, MIN_AREA_FRACTION, MIN_HC_MM, NO_SCALE, HeadOutline, outline_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox, preprocess
from edgefetal_runtime.scale import MAX_MM_PER_PX, MIN_MM_PER_PX, Scale

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


def _hc(outline: HeadOutline | Abstained) -> float:
    assert isinstance(outline, HeadOutline), outline
    measured = outline.circumference()
    assert isinstance(measured, Measured), measured
    assert measured.unit == "mm"
    return measured.value


def _why(outline: HeadOutline | Abstained) -> str:
    assert isinstance(outline, Abstained), outline
    return outline.reason


@pytest.fixture(scope="session")
def outlined(head_logits: Callable[..., npt.NDArray[np.float32]]) -> Callable[..., HeadOutline | Abstained]:
    """Outline a head, drawn in frame pixels, by the logits of a network that sees it exactly."""

    def outline(
        head_px: tuple[float, float, float, float, float] = HEAD_PX,
        shape: tuple[int, int] = SHAPE,
        scale: Scale | None = SCALE,
        spec: PreprocessSpec = SPEC,
    ) -> HeadOutline | Abstained:
        return outline_head(head_logits(head_px, shape, spec), letterbox(*shape, spec), scale)

    return outline


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    height=st.integers(100, 900),
    proportion=st.floats(0.7, 1.8),
    size=st.floats(0.15, 0.4),
    ratio=st.floats(0.65, 0.98),
    angle=st.floats(0, math.pi),
    across=st.floats(-0.05, 0.05),
    mm_per_px=st.floats(0.05, 0.4),
)
def test_hc_is_the_perimeter_of_the_drawn_head(
    outlined: Callable[..., HeadOutline | Abstained],
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
    assert isinstance(outline, HeadOutline)
    hc_mm = _perimeter(semi_major, ratio * semi_major) * mm_per_px
    assert outline.ellipse.circumference() == pytest.approx(hc_mm, rel=2e-3)
    assert outline.cephalic_index().value == pytest.approx(ratio, abs=5e-3)
    assert isinstance(outline.circumference(), Measured) == (MIN_HC_MM <= outline.ellipse.circumference() <= MAX_HC_MM)


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


def _outline_by_grey(frame: npt.NDArray[np.uint8], scale: Scale | None) -> HeadOutline | Abstained:
    """Take the way of a frame with a network that marks what is brighter than the middle grey."""
    tensor, box = preprocess(frame, SPEC)
    grey = (tensor[0, 0] * SPEC.std + SPEC.mean) * 255
    return outline_head((grey - 120).astype(np.float32), box, scale)


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
    assert isinstance(outline, HeadOutline)
    assert outline.cephalic_index().value == pytest.approx(25 / 32, abs=4e-3)


def test_hc_grows_with_the_pixel_size(outlined: Callable[..., HeadOutline | Abstained]) -> None:
    once, twice = (_hc(outlined(scale=Scale(size, size, origin="test"))) for size in (0.1, 0.2))
    assert twice == pytest.approx(2 * once, rel=1e-4)


def test_the_contour_is_given_in_frame_pixels_for_drawing() -> None:
    scale = Scale(0.10, 0.15, origin="test")
    frame = _drawn((540, 900), SIZES_MM, scale, 0.7)
    outline = _outline_by_grey(frame, scale)
    assert isinstance(outline, HeadOutline)
    # On the contour the drawing is half bright.
    x, y = outline.contour_px.astype(np.float32).T
    grey = cv2.remap(frame, x[None], y[None], cv2.INTER_LINEAR)
    assert np.abs(grey.astype(int) - 120).max() < 25
    assert outline.contour_px.shape[0] >= 64


def test_without_a_scale_there_are_no_millimetres_but_an_index(
    outlined: Callable[..., HeadOutline | Abstained],
) -> None:
    outline = outlined(scale=None)
    assert isinstance(outline, HeadOutline)
    assert outline.unit == "px"
    assert outline.ellipse.circumference() == pytest.approx(_perimeter(230, 180), rel=2e-3)
    assert outline.circumference() == Abstained(NO_SCALE)
    assert "--mm-per-px" in NO_SCALE
    assert "--scale-csv" in NO_SCALE
    assert outline.cephalic_index() == Measured(pytest.approx(180 / 230, abs=4e-3), "1")  # type: ignore[arg-type]


def test_a_whole_head_is_seen_all_round_smoothly_and_agreed_upon(
    outlined: Callable[..., HeadOutline | Abstained],
) -> None:
    outline = outlined()
    assert isinstance(outline, HeadOutline)
    assert outline.coverage == 1.0
    assert outline.roughness < 0.002
    assert 0.97 < outline.agreement <= 1.0


@pytest.mark.parametrize("sharpness", [3.0, 6.0])
def test_a_network_that_is_unsure_of_the_edge_agrees_less(
    head_logits: Callable[..., npt.NDArray[np.float32]], sharpness: float
) -> None:
    box = letterbox(*SHAPE, SPEC)
    sure, unsure = (outline_head(head_logits(HEAD_PX, SHAPE, SPEC, by), box, SCALE) for by in (100.0, sharpness))
    assert isinstance(sure, HeadOutline)
    assert isinstance(unsure, HeadOutline)
    assert unsure.agreement < sure.agreement - 0.1
    # Its edge is where it was all the same.
    assert _hc(unsure) == pytest.approx(_hc(sure), rel=1e-3)


def test_an_outline_next_to_a_second_structure_agrees_less(
    head_logits: Callable[..., npt.NDArray[np.float32]],
) -> None:
    box = letterbox(*SHAPE, SPEC)
    head = head_logits((260.0, 270.0, 190.0, 150.0, 0.2), SHAPE, SPEC)
    other = head_logits((620.0, 270.0, 130.0, 110.0, 0.2), SHAPE, SPEC)
    alone, crowded = outline_head(head, box, SCALE), outline_head(np.maximum(head, other), box, SCALE)
    assert isinstance(alone, HeadOutline)
    assert isinstance(crowded, HeadOutline)
    assert _hc(crowded) == pytest.approx(_hc(alone), rel=1e-6)
    assert crowded.agreement < alone.agreement - 0.1


def test_where_the_outline_strays_it_does_not_count_as_seen(
    head_logits: Callable[..., npt.NDArray[np.float32]],
) -> None:
    box = letterbox(*SHAPE, SPEC)
    head = head_logits(HEAD_PX, SHAPE, SPEC)
    bite = head_logits((HEAD_PX[0], HEAD_PX[1] + 190.0, 45.0, 45.0, 0.0), SHAPE, SPEC)
    outline = outline_head(np.minimum(head, -bite), box, SCALE)
    assert isinstance(outline, HeadOutline)
    assert outline.coverage == pytest.approx(0.94, abs=0.025)
    assert _hc(outline) == pytest.approx(_perimeter(230, 180) * 0.12, rel=5e-3)


@pytest.mark.parametrize(("centre_y", "seen"), [(120.0, 0.7), (150.0, 0.78), (420.0, 0.75)])
def test_a_head_that_the_picture_cuts_a_little_is_completed(
    outlined: Callable[..., HeadOutline | Abstained], centre_y: float, seen: float
) -> None:
    outline = outlined((400.0, centre_y, 220.0, 175.0, 0.0))
    assert _hc(outline) == pytest.approx(_perimeter(220, 175) * 0.12, rel=0.02)
    assert isinstance(outline, HeadOutline)
    assert outline.coverage == pytest.approx(seen, abs=0.1)


@pytest.mark.parametrize("head_px", [(400.0, 20.0, 220.0, 175.0, 0.0), (20.0, 20.0, 220.0, 180.0, 0.0)])
def test_a_head_of_which_half_is_out_of_the_picture_is_refused(
    outlined: Callable[..., HeadOutline | Abstained], head_px: tuple[float, float, float, float, float]
) -> None:
    assert _why(outlined(head_px)).endswith("of the head's outline is in the picture; show the whole head")


def test_an_outline_too_flat_for_a_head_is_refused(outlined: Callable[..., HeadOutline | Abstained]) -> None:
    assert "too flat for a head (axis ratio 0.50)" in _why(outlined((400.0, 270.0, 240.0, 120.0, 0.2)))


@pytest.mark.parametrize(("lobes", "depth"), [(3, 0.3), (4, 0.25), (5, 0.25)])
def test_an_outline_that_is_no_ellipse_is_refused(lobes: int, depth: float) -> None:
    rows, columns = np.mgrid[: SPEC.height_px, : SPEC.width_px]
    x, y = columns - 144.0, rows - 96.0
    edge = 60 * (1 + depth * np.cos(lobes * np.arctan2(y, x)))
    reason = _why(outline_head((edge - np.hypot(x, y)).astype(np.float32), letterbox(*SHAPE, SPEC), SCALE))
    assert "find a clearer plane" in reason


def test_a_speck_is_no_head(outlined: Callable[..., HeadOutline | Abstained]) -> None:
    radius = 0.9 * math.sqrt(MIN_AREA_FRACTION * SPEC.width_px * SPEC.height_px / math.pi) * SHAPE[1] / SPEC.width_px
    assert _why(outlined((400.0, 270.0, radius, radius, 0.0))) == "no head is outlined"
    assert isinstance(outlined((400.0, 270.0, 1.3 * radius, 1.3 * radius, 0.0)), HeadOutline)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_no_number_is_refused(
    head_logits: Callable[..., npt.NDArray[np.float32]], bad: float
) -> None:
    logits = head_logits(HEAD_PX, SHAPE, SPEC)
    logits[3, 5] = bad
    assert "not finite" in _why(outline_head(logits, letterbox(*SHAPE, SPEC), SCALE))


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
    outline = HeadOutline(Ellipse(0, 0, radius_mm, radius_mm, 0), "mm", np.zeros((4, 2)), 1.0, 0.0, 1.0)
    measured = outline.circumference()
    assert isinstance(measured, Abstained)
    assert measured.reason.endswith("check the pixel size")


@pytest.mark.parametrize(
    ("hc_mm", "given"), [(39.9, False), (44.0, True), (175.0, True), (346.0, True), (400.1, False)]
)
def test_the_heads_of_hc18_are_all_within_the_bounds_and_little_else(hc_mm: float, given: bool) -> None:  # noqa: FBT001 - a parameter
    radius_mm = hc_mm / (2 * math.pi)
    measured = HeadOutline(
        Ellipse(0, 0, radius_mm, radius_mm, 0), "mm", np.zeros((4, 2)), 1.0, 0.0, 1.0
    ).circumference()
    if given:
        assert measured == Measured(pytest.approx(hc_mm), "mm")  # type: ignore[arg-type]
    else:
        assert isinstance(measured, Abstained)
        assert "outside 40 to 400 mm; check the pixel size" in measured.reason


def test_an_abstention_is_falsy_and_a_measurement_truthy() -> None:
    assert not Abstained("why")
    assert Measured(0.0, "mm")


def _random_logits(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = shape
    rows, columns = np.mgrid[:height, :width]

    def disc() -> npt.NDArray[np.floating[Any]]:
        x, y = rng.uniform(0, 1, 2) * (width, height)
        radii = rng.uniform(0.5, 0.6 * min(width, height), 2)
        return 1 - np.hypot((columns - x) / radii[0], (rows - y) / radii[1])

    smooth = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), rng.uniform(0.5, 12))
    logits: npt.NDArray[Any] = {
        "noise": lambda: rng.normal(size=shape),
        "smooth": lambda: smooth,
        "biased": lambda: smooth + rng.uniform(-0.2, 0.2),
        "empty": lambda: np.full(shape, -rng.uniform(0, 9)),
        "full": lambda: np.full(shape, rng.uniform(0, 9)),
        "zero": lambda: np.zeros(shape),
        "one pixel": lambda: np.where((rows == rng.integers(height)) & (columns == rng.integers(width)), 5.0, -5.0),
        "disc": lambda: disc() * 10 ** rng.uniform(-3, 3),
        "hard disc": lambda: np.where(disc() > 0, 1.0, -1.0) * 10 ** rng.uniform(-30, 38),
        "two discs": lambda: np.maximum(disc(), disc()),
        "ring": lambda: 0.1 - np.abs(disc()),
        "bar": lambda: rng.uniform(0.5, 9) - np.abs(rows * rng.normal() - columns * rng.normal()),
        "thin line": lambda: np.where(rows == columns, 1.0, -1.0),
        "half": lambda: np.where(columns < rng.integers(1, width), 1.0, -1.0),
        "checks": lambda: np.where((rows + columns) % 2 == 0, 1.0, -1.0),
        "uint8 extremes": lambda: rng.choice([0, 255, 127, 128], shape).astype(np.uint8),
        "float extremes": lambda: rng.choice([-3.4e38, 3.4e38, 1e-45, -1e-45, 0.0], shape),
        "step": lambda: np.where(disc() > 0, 3.4e38, -1e-38),
        "dented": lambda: np.where(disc() > 0.5, -1.0, disc()),
    }[kind]()
    logits = np.asarray(logits, np.float32)
    spoilt = rng.uniform()
    if spoilt < 0.06:
        logits[rng.integers(height), rng.integers(width)] = rng.choice([np.nan, np.inf, -np.inf])
    return logits


KINDS = (
    "noise",
    "smooth",
    "biased",
    "empty",
    "full",
    "zero",
    "one pixel",
    "disc",
    "hard disc",
    "two discs",
    "ring",
    "bar",
    "thin line",
    "half",
    "checks",
    "uint8 extremes",
    "float extremes",
    "step",
    "dented",
)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_network_answers_there_is_an_outline_or_a_reason(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    seen = set()
    for number in range(110):
        frame_shape = tuple(rng.integers(16, 400, 2).tolist())
        spec = PreprocessSpec(height_px=int(rng.integers(8, 90)), width_px=int(rng.integers(8, 120)), mean=0.0, std=1.0)
        sizes = np.exp(rng.uniform(math.log(0.05), math.log(1.5)) + rng.uniform(-0.6, 0.6, 2))
        scale = Scale(*sizes.tolist(), origin="test") if number % 2 else None
        logits = _random_logits(rng, kind, (spec.height_px, spec.width_px))
        outline = outline_head(logits, letterbox(*frame_shape, spec), scale)
        seen.add(type(outline))
        if isinstance(outline, Abstained):
            assert outline.reason.strip()
            continue
        ellipse = outline.ellipse
        assert np.isfinite([ellipse.center_x, ellipse.center_y, ellipse.semi_major, ellipse.semi_minor]).all()
        assert np.isfinite(outline.contour_px).all()
        assert np.isfinite(logits).all()
        assert outline.unit == ("mm" if scale else "px")
        assert 0.6 <= outline.coverage <= 1
        assert 0 <= outline.roughness <= 0.06
        assert 0 <= outline.agreement <= 1
        measured = outline.circumference()
        assert measured.reason if isinstance(measured, Abstained) else MIN_HC_MM <= measured.value <= MAX_HC_MM
    if kind in ("empty", "full", "zero", "one pixel", "thin line", "checks"):
        assert seen == {Abstained}
    if kind in ("disc", "hard disc"):
        assert seen == {Abstained, HeadOutline}
