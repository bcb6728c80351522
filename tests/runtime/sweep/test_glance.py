"""A frame seen from afar: what is lit, and how alike two frames are."""

from __future__ import annotations

import numpy as np
import pytest

from edgefetal_runtime.sweep.glance import Glance, glance, likenesses

BLACK_LEVEL = 4


def _speckle(seed: int, shape: tuple[int, int] = (270, 400)) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(20, 255, (9, 12))
    rows, columns = (np.arange(side) * count // side for side, count in zip(shape, coarse.shape, strict=True))
    picture = coarse[rows][:, columns]
    return picture.astype(np.uint8).reshape(shape)


@pytest.mark.parametrize("shape", [(32, 48), (33, 49), (127, 191), (128, 192), (270, 400), (768, 1024), (16, 16)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_lit_is_the_share_of_pixels_that_are_not_black(shape: tuple[int, int], share: float) -> None:
    pixels = np.full(shape, BLACK_LEVEL, np.uint8)
    pixels[: round(share * shape[0])] = BLACK_LEVEL + 1
    seen = glance(pixels)
    assert seen.small.shape == (32, 48)
    assert seen.small.dtype == np.float32
    assert seen.lit == pytest.approx(share, abs=1.5 / shape[0])
    if share in (0.0, 1.0):
        assert seen.lit == share


def test_a_frame_is_like_itself_however_bright_and_unlike_another() -> None:
    one, other = _speckle(1), _speckle(2)
    assert glance(one).likeness(glance(one)) == pytest.approx(1.0)
    # The gain may be turned up while the probe stands still.
    assert glance(one // 2 + 60).likeness(glance(one)) > 0.99
    assert glance(one).likeness(glance(other)) < 0.5
    assert glance(one).likeness(glance(255 - one)) < -0.9


def test_likeness_is_mutual_and_a_share_of_change_lowers_it_by_degrees() -> None:
    one = _speckle(1)
    before = 1.0
    for rows in (30, 90, 180, 270):
        changed = one.copy()
        changed[:rows] = _speckle(2)[:rows]
        likeness = glance(one).likeness(glance(changed))
        assert likeness == pytest.approx(glance(changed).likeness(glance(one)))
        assert likeness < before
        before = likeness


def test_what_neither_frame_shows_counts_nothing() -> None:
    """The black around the fan is alike in all frames, and would make all of them alike."""
    one, other = np.zeros((320, 480), np.uint8), np.zeros((320, 480), np.uint8)
    one[100:200, 150:300], other[100:200, 150:300] = _speckle(1, (100, 150)), _speckle(2, (100, 150))
    assert glance(one).likeness(glance(other)) < 0.5


@pytest.mark.parametrize(
    ("one", "other", "likeness"),
    [
        (np.zeros((64, 96)), np.zeros((64, 96)), 0.0),
        (np.full((64, 96), 90), np.full((64, 96), 90), 1.0),
        (np.full((64, 96), 90), np.full((64, 96), 91), 0.0),
        (np.zeros((64, 96)), np.full((64, 96), 90), 0.0),
    ],
    ids=["both dark", "the same grey", "other greys", "dark and grey"],
)
def test_pictures_without_anything_in_them_are_alike_only_if_they_are_the_same(
    one: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    other: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    likeness: float,
) -> None:
    assert glance(one.astype(np.uint8)).likeness(glance(other.astype(np.uint8))) == likeness


def test_two_frames_that_share_one_lit_cell_are_compared_without_a_warning() -> None:
    small = np.zeros((32, 48), np.float32)
    small[3, 4] = 100
    assert Glance(small, 0.01).likeness(Glance(small, 0.01)) == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_all_pairs_at_once_are_alike_as_one_by_one(seed: int) -> None:
    """Moving, dark, even, frozen and half dark pictures, each with each."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 255, (32, 48))
    pictures = [np.clip(base + rng.normal(0, spread, base.shape), 0, 255) for spread in (0, 1, 5, 20, 80, 200)]
    half = base.copy()
    half[:, 24:] = 0
    pictures += [base, half, np.zeros_like(base), np.full_like(base, 3.0), np.full_like(base, 90.0), 255 - base]
    glances = [Glance(picture.astype(np.float32), 0.5) for picture in pictures]
    plain = [[one.likeness(other) for other in glances] for one in glances]
    assert np.allclose(likenesses(glances), plain, atol=1e-4)


def test_of_no_pictures_there_are_no_pairs() -> None:
    assert likenesses([]).shape == (0, 0)
