"""The one preprocessing: where it puts a frame, what grey levels it makes, and the way back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.infer.preprocess import MIN_FRAME_SIDE_PX, PreprocessSpec, letterbox, preprocess

SPEC = PreprocessSpec(height_px=48, width_px=72, mean=0.15, std=0.2)
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)

sides = st.integers(MIN_FRAME_SIDE_PX, 700)
specs = st.builds(
    PreprocessSpec, height_px=st.integers(8, 300), width_px=st.integers(8, 300), mean=st.just(0.0), std=st.just(1.0)
)
# Enlarged, at its own size, and reduced by up to more than eight times; wide, square and tall; even and odd.
FRAME_SHAPES = [
    (16, 24),
    (30, 45),
    (40, 17),
    (48, 72),
    (47, 71),
    (60, 60),
    (95, 143),
    (96, 144),
    (97, 145),
    (131, 77),
    (192, 288),
    (201, 301),
    (270, 400),
    (301, 150),
    (385, 577),
    (500, 333),
]


def _grey(tensor: npt.NDArray[np.float32], spec: PreprocessSpec) -> npt.NDArray[np.float64]:
    """Undo the normalisation."""
    return (tensor[0, 0].astype(np.float64) * spec.std + spec.mean) * 255.0


def _speckle(shape: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.0), np.uint8)


@SETTINGS
@given(height=sides, width=sides, spec=specs, seed=st.integers(0, 1000))
def test_the_way_back_undoes_the_way_there(height: int, width: int, spec: PreprocessSpec, seed: int) -> None:
    box = letterbox(height, width, spec)
    points = np.random.default_rng(seed).uniform(-50, 1000, (20, 2))
    np.testing.assert_allclose(box.to_frame(box.to_network(points)), points, rtol=0, atol=1e-6)
    np.testing.assert_allclose(box.to_network(box.to_frame(points)), points, rtol=0, atol=1e-6)


@SETTINGS
@given(height=sides, width=sides, spec=specs)
def test_the_whole_frame_lies_in_the_input_and_fills_it_one_way(height: int, width: int, spec: PreprocessSpec) -> None:
    box = letterbox(height, width, spec)
    content_width, content_height = box.content_width_px, box.content_height_px
    assert content_width == spec.width_px or content_height == spec.height_px
    margin_x, margin_y = spec.width_px - content_width, spec.height_px - content_height
    assert min(margin_x, margin_y) >= 0
    # Centred, to the pixel.
    assert (box.left_px, box.top_px) == (margin_x // 2, margin_y // 2)
    # The edges of the content are the edges of the frame, but for the half pixel that each halving of an odd side adds.
    corners = box.to_network(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    begin, end = corners + 0.5
    slack = 1.5 / np.array([box.x.step, box.y.step]) * (2**box.halvings - 1) + 1e-6
    assert (np.abs(begin - (box.left_px, box.top_px)) <= slack).all()
    assert (np.abs(end - (box.left_px + content_width, box.top_px + content_height)) <= slack).all()


@SETTINGS
@given(height=sides, width=sides, spec=specs)
def test_the_aspect_of_pixels_is_kept_but_for_whole_pixels(height: int, width: int, spec: PreprocessSpec) -> None:
    box = letterbox(height, width, spec)
    # Half a pixel of rounding on each content side, and half a pixel on the reduced frame.
    reduced = min(height, width) / 2**box.halvings
    tolerance = 0.51 / box.content_width_px + 0.51 / box.content_height_px + 2.0 / reduced
    if min(box.content_width_px, box.content_height_px) > 1:
        assert box.x.step / box.y.step == pytest.approx(1.0, rel=2 * tolerance)


@SETTINGS
@given(height=sides, width=sides, spec=specs)
def test_a_frame_is_halved_until_less_than_twice_too_large(height: int, width: int, spec: PreprocessSpec) -> None:
    box = letterbox(height, width, spec)
    ratio = max(height / spec.height_px, width / spec.width_px)
    assert box.halvings >= 0
    assert ratio / 2**box.halvings < 2
    assert box.halvings == 0 or ratio / 2**box.halvings >= 1


def _blob(shape: tuple[int, int], x: float, y: float, sigma: float) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.round(250.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.uint8)


@pytest.mark.parametrize("shape", FRAME_SHAPES)
@pytest.mark.parametrize(("across", "down"), [(0.5, 0.5), (0.25, 0.7), (0.8, 0.3)])
def test_a_bright_spot_lands_where_the_letterbox_says(shape: tuple[int, int], across: float, down: float) -> None:
    box = letterbox(*shape, SPEC)
    sigma = 1.5 * max(1.0, box.x.step)
    # Four standard deviations from every edge, so that no part of the spot is cut.
    x, y = (
        float(np.clip(share * size, 4 * sigma, size - 1 - 4 * sigma)) if size > 8 * sigma + 1 else (size - 1) / 2
        for share, size in ((across, shape[1]), (down, shape[0]))
    )
    tensor, placed = preprocess(_blob(shape, x, y, sigma), SPEC)
    assert placed == box
    grey = _grey(tensor, SPEC)
    rows, columns = np.mgrid[: SPEC.height_px, : SPEC.width_px]
    found = np.array([(grey * columns).sum(), (grey * rows).sum()]) / grey.sum()
    np.testing.assert_allclose(found, box.to_network(np.array([[x, y]]))[0], rtol=0, atol=0.3)


@pytest.mark.parametrize("shape", FRAME_SHAPES)
def test_round_the_frame_the_input_is_black(shape: tuple[int, int]) -> None:
    tensor, box = preprocess(np.full(shape, 200, np.uint8), SPEC)
    grey = _grey(tensor, SPEC)
    content = np.zeros(grey.shape, dtype=bool)
    content[box.top_px :, box.left_px :][: box.content_height_px, : box.content_width_px] = True
    np.testing.assert_allclose(grey[content], 200.0, atol=1e-4)
    np.testing.assert_allclose(grey[~content], 0.0, atol=1e-4)


def _plain_half(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`cv2.pyrDown` by its definition: 1-4-6-4-1 both ways, mirrored at the border, every second pixel, rounded."""
    weights = (1, 4, 6, 4, 1)
    padded = np.pad(pixels, 2, mode="reflect")
    height, width = pixels.shape
    rows = sum(weight * padded[k : k + height : 2, :] for k, weight in enumerate(weights))
    both = sum(weight * np.asarray(rows)[:, k : k + width : 2] for k, weight in enumerate(weights))
    return (np.asarray(both) + 128) >> 8


def _plain_resize(pixels: npt.NDArray[np.float64], size: int, axis: int) -> npt.NDArray[np.float64]:
    """Linear interpolation along an axis, areas of the pixels aligned, edge pixels repeated."""
    length = pixels.shape[axis]
    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    below = np.minimum(place.astype(int), max(0, length - 2))
    above = np.minimum(below + 1, length - 1)
    share = (place - below)[:, None] if axis == 0 else place - below
    return np.take(pixels, below, axis) * (1 - share) + np.take(pixels, above, axis) * share


@pytest.mark.parametrize("shape", FRAME_SHAPES)
def test_the_tensor_is_that_of_plain_arithmetic(shape: tuple[int, int]) -> None:
    frame = _speckle(shape)
    tensor, box = preprocess(frame, SPEC)
    reduced = frame.astype(np.int64)
    for _ in range(box.halvings):
        reduced = _plain_half(reduced)
    resized = _plain_resize(_plain_resize(reduced.astype(float), box.content_height_px, 0), box.content_width_px, 1)
    expected = np.zeros((SPEC.height_px, SPEC.width_px))
    expected[box.top_px :, box.left_px :][: box.content_height_px, : box.content_width_px] = resized
    np.testing.assert_allclose(_grey(tensor, SPEC), expected, rtol=0, atol=1.0)


def test_a_frame_of_the_inputs_size_is_only_normalised() -> None:
    frame = np.arange(48 * 72, dtype=np.uint64).reshape(48, 72).astype(np.uint8)
    tensor, box = preprocess(frame, SPEC)
    expected = ((frame / 255.0 - 0.15) / 0.2).astype(np.float32)
    np.testing.assert_array_equal(tensor[0, 0], expected)
    points = np.array([[3.25, 40.5]])
    np.testing.assert_allclose(box.to_frame(points), points, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", FRAME_SHAPES)
def test_the_same_frame_gives_the_same_bytes_and_stays_as_it_was(shape: tuple[int, int]) -> None:
    frame = _speckle(shape)
    before = frame.tobytes()
    first, second = preprocess(frame, SPEC)[0], preprocess(frame.copy(), SPEC)[0]
    assert first.shape == (1, 1, SPEC.height_px, SPEC.width_px)
    assert first.dtype == np.float32
    assert first.tobytes() == second.tobytes()
    assert frame.tobytes() == before


@pytest.mark.parametrize("shape", [(60, 90), (300, 400)])
def test_views_of_a_larger_picture_are_prepared_like_copies(shape: tuple[int, int]) -> None:
    large = _speckle((2 * shape[0] + 7, 2 * shape[1] + 5))
    for view in (large[3 : 3 + shape[0], 2 : 2 + shape[1]], large[::2, ::2], large.T, large[::-1, ::-1]):
        assert preprocess(view, SPEC)[0].tobytes() == preprocess(np.ascontiguousarray(view), SPEC)[0].tobytes()


@SETTINGS
@given(height=st.integers(MIN_FRAME_SIDE_PX, 2000), width=st.integers(MIN_FRAME_SIDE_PX, 40), turned=st.booleans())
def test_a_frame_of_any_proportions_is_prepared(height: int, width: int, turned: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    shape = (width, height) if turned else (height, width)
    tensor, box = preprocess(np.full(shape, 255, np.uint8), SPEC)
    assert np.isfinite(tensor).all()
    assert (_grey(tensor, SPEC) > 250).sum() == box.content_width_px * box.content_height_px


@pytest.mark.parametrize(("height", "width"), [(15, 400), (400, 15), (1, 1), (0, 40)])
def test_a_thumbnail_is_refused(height: int, width: int) -> None:
    with pytest.raises(SourceError, match=rf"{width} x {height} pixels and needs at least 16 a side. Give the picture"):
        preprocess(np.zeros((height, width), np.uint8), SPEC)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((48, 72, 3), np.uint8), np.zeros(4000, np.uint8), np.zeros((48, 72), np.uint16), np.zeros((48, 72))],
    ids=["colour", "flat", "16 bit", "float"],
)
def test_an_array_that_is_no_grey_8_bit_picture_is_refused(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(SourceError, match=r"must be grey and 8 bit, \(H, W\) uint8"):
        preprocess(pixels, SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"height_px": 0},
        {"width_px": -1},
        {"height_px": 1.5},
        {"std": 0.0},
        {"std": -1.0},
        {"std": float("nan")},
        {"std": float("inf")},
        {"mean": float("nan")},
        {"mean": float("inf")},
        {"gamma": 1.0},
    ],
    ids=str,
)
def test_a_spec_that_cannot_prepare_anything_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PreprocessSpec.model_validate(SPEC.model_dump() | change)
