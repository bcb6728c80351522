"""The one region of a map: the structure with its holes filled, or a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.region import MAX_SECOND_SHARE, MIN_AREA_FRACTION, only_region


def _disc(shape: tuple[int, int], x: float, y: float, radius: float) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (radius - np.hypot(columns - x, rows - y)).astype(np.float32)


def _region(logits: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    region = only_region(logits, "head")
    assert not isinstance(region, Abstained), region
    assert region.dtype == np.uint8
    assert set(np.unique(region)) <= {0, 1}
    return region


def _why(logits: npt.NDArray[Any]) -> str:
    region = only_region(logits, "head")
    assert isinstance(region, Abstained)
    return region.reason


def test_the_largest_region_is_taken_and_a_speck_beside_it_left() -> None:
    logits = np.maximum(_disc((60, 100), 20, 30, 9), _disc((60, 100), 70, 30, 20))
    np.testing.assert_array_equal(_region(logits), _disc((60, 100), 70, 30, 20) > 0)


def test_two_regions_of_like_size_are_refused() -> None:
    logits = np.maximum(_disc((60, 100), 22, 30, 18), _disc((60, 100), 70, 30, 20))
    assert _why(logits) == "more than one head is outlined; show one alone"


@pytest.mark.parametrize(("ratio", "refused"), [(0.9, False), (1.1, True)])
def test_the_second_region_may_have_less_than_the_stated_share(ratio: float, refused: bool) -> None:  # noqa: FBT001 - a parameter
    small = 24 * (ratio * MAX_SECOND_SHARE) ** 0.5
    logits = np.maximum(_disc((60, 120), 22, 30, small), _disc((60, 120), 80, 30, 24))
    assert isinstance(only_region(logits, "head"), Abstained) == refused


def test_holes_in_the_region_are_filled() -> None:
    logits = _disc((60, 100), 50, 30, 22)
    logits[np.hypot(*np.meshgrid(np.arange(100) - 55.0, np.arange(60) - 28.0)) < 6] = -1
    np.testing.assert_array_equal(_region(logits), _disc((60, 100), 50, 30, 22) > 0)


def test_an_island_in_a_hole_is_no_second_structure() -> None:
    logits = 12 - np.abs(_disc((60, 100), 50, 30, 15) + 3)
    logits[28:33, 48:53] = 1
    np.testing.assert_array_equal(_region(logits.astype(np.float32)), _disc((60, 100), 50, 30, 30) > 0)


def test_a_region_of_everything_counts_beyond_16_bits() -> None:
    assert _region(np.ones((300, 300), np.float32)).sum() == 90_000


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (30, 40)])
@pytest.mark.parametrize("value", [0.0, -1.0, -3e38])
def test_where_nothing_is_positive_nothing_is_outlined(shape: tuple[int, int], value: float) -> None:
    assert _why(np.full(shape, value, np.float32)) == "no head is outlined"


@pytest.mark.parametrize("shape", [(1, 1), (20, 30)])
def test_one_pixel_is_no_structure(shape: tuple[int, int]) -> None:
    logits = np.full(shape, -1, np.float32)
    logits[shape[0] // 2, shape[1] // 2] = 5
    assert _why(logits) == "no head is outlined"


def test_a_line_is_no_structure() -> None:
    logits = np.full((40, 60), -1, np.float32)
    logits[20, 5:55] = 5
    assert _why(logits) == "no head is outlined"


def test_a_speck_is_no_structure() -> None:
    radius = (MIN_AREA_FRACTION * 192 * 288 / np.pi) ** 0.5
    assert _why(_disc((192, 288), 144, 96, 0.9 * radius)) == "no head is outlined"
    _region(_disc((192, 288), 144, 96, 1.3 * radius))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_no_number_is_refused(bad: float) -> None:
    logits = _disc((60, 100), 50, 30, 22)
    logits[3, 5] = bad
    assert "finite numbers" in _why(logits)


@pytest.mark.parametrize(
    "logits",
    [
        np.full((20, 30), 200, np.uint8),
        np.ones((20, 30), np.int32),
        np.ones((20, 30), bool),
        np.ones((20, 30), np.float16),
        np.ones((20, 30), np.longdouble),
        np.ones((20, 30), complex),
        np.ones((1, 20, 30), np.float32),
        np.ones(20, np.float32),
        np.ones((0, 5), np.float32),
        np.ones((5, 0), np.float32),
    ],
    ids=["uint8", "int32", "bool", "float16", "long double", "complex", "3-D", "1-D", "no rows", "no columns"],
)
def test_what_is_no_map_of_logits_is_refused(logits: npt.NDArray[Any]) -> None:
    assert "finite numbers" in _why(logits)
