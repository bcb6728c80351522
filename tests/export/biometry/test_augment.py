from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgefetal_calibration.evaluate import ellipse_mask
from edgefetal_export.training.biometry import augment
from edgefetal_export.training.biometry.augment import augmented_head, outline_in_network, soft_mask, without_head
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox

HEAD = Ellipse(230.0, 150.0, 110.0, 80.0, 0.2)
SHAPE = (300, 460)


def ring() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A dim picture with a bright skull wall just inside the outline."""
    picture = np.full(SHAPE, 40, np.uint8)
    picture[ellipse_mask(HEAD, SHAPE) & ~ellipse_mask(HEAD.grown(-6), SHAPE)] = 220
    return picture


def test_soft_mask_is_half_on_the_outline_and_has_its_area() -> None:
    spec = PreprocessSpec(height_px=192, width_px=288, mean=0.0, std=1.0)
    outline = Ellipse(140.0, 95.0, 70.0, 50.0, 0.3)
    mask = soft_mask(outline, spec)
    on_outline = cv2.remap(mask, outline.points(64)[None].astype(np.float32), None, cv2.INTER_LINEAR)
    assert np.abs(on_outline - 0.5).max() < 0.08
    assert mask.sum() == pytest.approx(np.pi * 70 * 50, rel=0.002)


@pytest.mark.parametrize("seed", range(20))
def test_outline_follows_the_picture(seed: int) -> None:
    picture, outline, _ = augmented_head(ring(), HEAD, np.random.default_rng(seed))
    inside, outside = (
        cv2.remap(
            picture.astype(np.float32), outline.grown(d).points(180)[None].astype(np.float32), None, cv2.INTER_LINEAR
        )
        for d in (-3.0, 6.0)
    )
    in_view = inside > 0
    assert in_view.mean() > 0.6
    # Grain, shadow and gain may hide the wall at single points, never for most of it.
    assert np.median(inside[in_view]) > 1.5 * np.median(outside[in_view])


def test_window_beside_the_head_holds_no_wall() -> None:
    windows = [augment._window_beside_head(ring(), HEAD, np.random.default_rng(seed)) for seed in range(10)]
    found = [window for window in windows if window is not None]
    assert len(found) >= 6
    assert all(window.max() < 60 for window in found)
    assert all((window > 30).mean() > 0.2 for window in found)


@pytest.mark.parametrize("seed", range(10))
def test_painted_over_head_keeps_no_wall(seed: int) -> None:
    painted = augment._painted_over(ring(), HEAD, np.random.default_rng(seed))
    wall = ring() == 220
    assert np.percentile(painted[wall], 95) < 120
    far = ~ellipse_mask(HEAD.grown(110), SHAPE)
    assert np.array_equal(painted[far], ring()[far])


def test_every_kind_of_picture_without_a_head_is_made() -> None:
    kinds = [without_head(ring(), HEAD, np.random.default_rng(seed)) for seed in range(40)]
    assert all(picture.dtype == np.uint8 and picture.ndim == 2 for picture in kinds)
    assert any(picture.max() < 30 for picture in kinds), "a black screen"
    assert any(picture.shape != SHAPE for picture in kinds), "a window"


def test_same_seed_same_bytes() -> None:
    for make in (augmented_head, without_head):
        first, second = (make(ring(), HEAD, np.random.default_rng(4)) for _ in range(2))
        a, b = (np.asarray(value[0] if isinstance(value, tuple) else value) for value in (first, second))
        assert np.array_equal(a, b)


def test_outline_survives_the_way_into_the_network() -> None:
    spec = PreprocessSpec(height_px=192, width_px=288, mean=0.0, std=1.0)
    box = letterbox(*SHAPE, spec)
    moved = outline_in_network(HEAD, box)
    assert moved is not None
    assert moved.semi_major == pytest.approx(HEAD.semi_major / box.x.step, rel=0.01)
