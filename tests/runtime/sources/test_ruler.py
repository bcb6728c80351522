"""Rulers: drawn ones are read to a fraction of a pixel, and nothing else passes for one."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.scale import NoScale
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey
from edgefetal_runtime.sources.ruler import MIN_MARKS, NoRuler, Ruler, read_ruler
from edgefetal_runtime.sources.scale_evidence import PITCHES_MM, scale_from_depth
from edgefetal_runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

HEIGHT, WIDTH = 540, 800
# Distance between marks in mm, every how many a longer one: as SonoSite, Butterfly and GE draw them, and plain.
STYLES = ((5, 2), (2, 5), (5, 2), (10, None))


def _draw(
    picture: npt.NDArray[np.uint8],
    period_px: float,
    *,
    column: int = 780,
    first_px: float = 20.0,
    long_every: int | None = None,
    missing: Sequence[int] = (),
    level: int = 220,
) -> int:
    """Draw marks on whole rows, as machines do, and return how many."""
    drawn = 0
    for number in range(int((picture.shape[0] - 1 - first_px) / period_px) + 1):
        if number in missing:
            continue
        row = round(first_px + number * period_px)
        picture[row : row + 2, column : column + (10 if long_every and number % long_every == 0 else 5)] = level
        drawn += 1
    return drawn


def _black() -> npt.NDArray[np.uint8]:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    period_px=st.floats(12, 80),
    first_px=st.floats(0, 60),
    column=st.integers(0, WIDTH - 12),
    noise=st.integers(0, 15),
    style=st.sampled_from(STYLES),
    seed=st.integers(0, 99),
)
def test_a_drawn_ruler_is_read_within_a_half_of_a_percent(
    period_px: float, first_px: float, column: int, noise: int, style: tuple[int, int | None], seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, noise + 1, (HEIGHT, WIDTH), dtype=np.uint8)
    drawn = _draw(picture, period_px, first_px=first_px, column=column, long_every=style[1])
    ruler = read_ruler(picture)
    assert isinstance(ruler, Ruler) == (drawn >= MIN_MARKS)
    if ruler:
        assert ruler.period_px == pytest.approx(period_px, rel=0.005)
        assert abs(ruler.period_px - period_px) < 5 * ruler.period_se_px
        assert (ruler.marks, ruler.intervals) == (drawn, drawn - 1)
        assert ruler.long_every == (style[1] if style[1] and drawn > style[1] else None)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_marks_are_read_along_the_axis_that_was_asked_for_and_no_other(axis: str) -> None:
    picture = _black()
    _draw(picture if axis == "y" else picture.T, 30.0, column=400)
    ruler = read_ruler(picture, axis)
    assert isinstance(ruler, Ruler)
    assert (ruler.axis, ruler.period_px) == (axis, pytest.approx(30.0, rel=1e-3))
    assert not read_ruler(picture, "x" if axis == "y" else "y")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(missing=st.sets(st.integers(0, 16), max_size=12))
def test_missing_marks_leave_the_same_ruler_or_a_whole_multiple_or_none(missing: set[int]) -> None:
    picture = _black()
    _draw(picture, 30.0, missing=tuple(missing))
    ruler = read_ruler(picture)
    if isinstance(ruler, NoRuler):
        assert missing
        return
    multiple = ruler.period_px / 30.0
    assert multiple == pytest.approx(round(multiple), rel=0.005)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(jitter_px=st.floats(4, 9), seed=st.integers(0, 999))
def test_uneven_marks_are_no_ruler(jitter_px: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = _black()
    for number in range(16):
        row = round(20 + 30 * number + rng.choice((-1, 1)) * rng.uniform(2.5, jitter_px))
        picture[row : row + 2, 780:786] = 220
    assert not read_ruler(picture)


def test_two_rulers_that_contradict_one_another_are_none() -> None:
    picture = _black()
    _draw(picture, 30.0, column=10)
    _draw(picture, 41.0, column=780)
    ruler = read_ruler(picture)
    assert isinstance(ruler, NoRuler)
    assert "contradict" in ruler.reason


def test_a_coarser_ruler_on_the_other_side_leaves_the_finer() -> None:
    picture = _black()
    _draw(picture, 25.0, column=10)
    _draw(picture, 50.0, column=780)
    ruler = read_ruler(picture)
    assert isinstance(ruler, Ruler)
    assert ruler.period_px == pytest.approx(25.0, rel=1e-3)


@pytest.mark.parametrize("period_px", [120.0, 5.0])
def test_marks_too_few_or_too_close_are_no_ruler(period_px: float) -> None:
    picture = _black()
    _draw(picture, period_px)
    assert not read_ruler(picture)


def test_marks_over_a_small_part_of_the_picture_are_no_ruler() -> None:
    picture = _black()
    _draw(picture, 12.0, missing=range(8, 99))
    assert not read_ruler(picture)


@pytest.mark.parametrize("line_px", [14, 18, 24, 36])
@pytest.mark.parametrize("right_aligned", [False, True])
def test_a_list_of_text_is_no_ruler(line_px: int, right_aligned: bool) -> None:  # noqa: FBT001 - parametrised
    words = ("Routine", "Har-mid", "Pwr 91 %", "Gn 2", "C6 / M7", "P3 / E3", "SRI II 3", "- - -", "FR 31", "E", "-12")
    picture = _black()
    for number in range(HEIGHT // line_px - 1):
        word = words[number % len(words)]
        (width, _), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        place = (790 - width if right_aligned else 10, 20 + number * line_px)
        cv2.putText(picture, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    assert not read_ruler(picture)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 9999), grain=st.floats(0.6, 4.0), gain=st.floats(0.5, 6.0))
def test_speckle_is_no_ruler(seed: int, grain: float, gain: float) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
    picture = np.clip((cv2.GaussianBlur(noise, (0, 0), grain, sigmaY=0.6) - 128.0) * gain + 60, 0, 255)
    assert not read_ruler(picture.astype(np.uint8))
    assert not read_ruler(picture.astype(np.uint8), "x")


@pytest.mark.parametrize("shape", [(1, 1), (1, 800), (540, 1), (8, 8), (16, 16)])
@pytest.mark.parametrize("level", [0, 255])
def test_any_shape_and_level_is_no_ruler(shape: tuple[int, int], level: int) -> None:
    assert not read_ruler(np.full(shape, level, np.uint8))


def test_real_rulers_are_read_and_fit_what_is_known(shared_data: Path) -> None:
    sonosite = read_ruler(read_grey(shared_data / "handheld" / "sonosite-anon-eye1.jpg"))
    assert isinstance(sonosite, Ruler)
    assert 5 / sonosite.period_px == pytest.approx(0.0758, rel=0.001)
    video = read_ruler(next(VideoSource(shared_data / "handheld" / "sonosite-anon-eye1-video.mp4").frames()).pixels)
    assert isinstance(video, Ruler)
    assert 5 / video.period_px == pytest.approx(0.0758, rel=0.001)
    butterfly = read_ruler(next(VideoSource(shared_data / "handheld" / "butterfly-ocular-phantom.mp4").frames()).pixels)
    assert isinstance(butterfly, Ruler)
    # The centimetres that stand beside its marks are 173.3 px apart in this recording.
    assert 10 / (5 * butterfly.period_px) == pytest.approx(10 / 173.3, rel=0.001)
    for picture in sorted((shared_data / "sononet" / "example_images").glob("*.png")):
        ruler = read_ruler(read_grey(picture))
        assert isinstance(ruler, Ruler), picture.name
        assert ruler.long_every in {2, 5}


def test_real_pictures_without_a_ruler_have_none(hc18_root: Path, shared_data: Path) -> None:
    pictures = sorted((hc18_root / "training_set").glob("*HC.png"))[::20]
    assert len(pictures) == 42
    for picture in pictures:
        assert not read_ruler(read_grey(picture)), picture.name
    images = sorted((shared_data / "pretus").glob("*.mhd"))
    assert len(images) == 4
    for image in images:
        (frame,) = open_metaimage(image).frames()
        assert not read_ruler(frame.pixels), image.name
        assert not read_ruler(frame.pixels, "x"), image.name


def _drawn_on_hc18(hc18_root: Path) -> Iterator[tuple[npt.NDArray[np.uint8], float, bool]]:
    """Yield every picture of HC18 with a ruler drawn on it, its mm per px, and whether the ruler has marks enough.

    Some rulers lie over tissue. HC18's own rulers were wiped out before it was published.
    """
    rng = np.random.default_rng(0)
    with (hc18_root / "training_set_pixel_size_and_HC.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        picture = read_grey(hc18_root / "training_set" / row["filename"]).copy()
        mm_per_px = float(row["pixel size(mm)"])
        pitch_mm, long_every = STYLES[rng.integers(len(STYLES))]
        column = int(rng.choice((20, 300, 780)))
        drawn = _draw(picture, pitch_mm / mm_per_px, column=column, first_px=rng.uniform(0, 30), long_every=long_every)
        yield picture, mm_per_px, drawn >= MIN_MARKS


@pytest.mark.slow
def test_no_picture_of_hc18_has_a_ruler(hc18_root: Path) -> None:
    pictures = sorted((hc18_root / "training_set").glob("*HC.png"))
    false = sum(bool(read_ruler(read_grey(picture), axis)) for picture in pictures for axis in ("x", "y"))
    print(f"rulers read on {len(pictures)} pictures without one, down and across: {false}")  # noqa: T201 - docs/scale.md
    assert false == 0


@pytest.mark.slow
def test_rulers_drawn_on_all_of_hc18_are_read_right_or_not_at_all(hc18_root: Path) -> None:
    counts = {"drawn": 0, "found": 0, "right": 0, "wrong": 0}
    for picture, mm_per_px, enough in _drawn_on_hc18(hc18_root):
        counts["drawn"] += enough
        ruler = read_ruler(picture)
        if ruler:
            right = min(abs(pitch / ruler.period_px / mm_per_px - 1) for pitch in PITCHES_MM) < 0.01
            counts["found"] += 1
            counts["right" if right else "wrong"] += 1
    print(counts)  # noqa: T201 - docs/scale.md
    assert counts["wrong"] == 0
    assert counts["right"] >= 0.95 * counts["drawn"]


@pytest.mark.slow
def test_a_depth_typed_at_random_makes_a_wrong_scale_only_by_a_factor_between_two_distances(hc18_root: Path) -> None:
    rng = np.random.default_rng(1)
    counts = {"none": 0, "right": 0, "wrong": 0}
    for picture, mm_per_px, _ in _drawn_on_hc18(hc18_root):
        for depth_mm in rng.choice(np.arange(30, 250, 5.0), 4, replace=False):
            scale, _ = scale_from_depth(picture, float(depth_mm))
            if isinstance(scale, NoScale):
                counts["none"] += 1
                continue
            factor = scale.y_mm_per_px / mm_per_px
            counts["right" if abs(factor - 1) < 0.01 else "wrong"] += 1
            assert min(abs(factor / usual - 1) for usual in (0.1, 0.2, 0.5, 1, 2, 5, 10)) < 0.01
    print(counts)  # noqa: T201 - docs/scale.md
    assert counts["wrong"] <= 0.005 * sum(counts.values())
