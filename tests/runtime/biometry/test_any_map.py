"""Whatever a network answers: a value or a reason, and nothing raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_runtime.biometry.abdomen import ABDOMEN_SHAPE, measure_abdomen
from edgefetal_runtime.biometry.femur import Shaft, find_shaft, measure_femur
from edgefetal_runtime.biometry.head import HEAD_SHAPE, measure_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
from edgefetal_runtime.biometry.outline import MAX_DISAGREEMENT, MAX_ROUGHNESS, MIN_COVERAGE, Outline, outline_round
from edgefetal_runtime.infer.preprocess import AxisMap, Letterbox
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

BATCHES = 25
PER_BATCH = 400
# Most maps are small, so that ten thousand take seconds; one batch in eight has the network's own size.
GRIDS = ((1, 1), (1, 7), (6, 1), (2, 3), (5, 5), (9, 14), (16, 24), (24, 36), (32, 48), (40, 60), (48, 31))
LARGE = (192, 288)
DTYPES = (np.float32, np.float32, np.float32, np.float64, np.float16, np.uint8, np.int32, bool)


def _drawn(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Ellipses, bars and rings at random places, positive inside, shape (count, h, w)."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = rng.uniform(-0.1, 1.1, (2, count, 1, 1)).astype(np.float32) * np.array([width, height]).reshape(2, 1, 1, 1)
    size = rng.uniform(0.5, 0.5 * max(shape), (count, 1, 1))
    ratio = rng.uniform(0.03, 1.0, (count, 1, 1))
    angle = rng.uniform(0, np.pi, (count, 1, 1))
    u = ((columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)) / size
    v = ((rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)) / (size * ratio)
    bars = np.where(rng.uniform(size=(count, 1, 1)) < 0.3, np.maximum(np.abs(u), np.abs(v)), np.hypot(u, v))
    rings = rng.uniform(size=(count, 1, 1)) < 0.15
    return np.asarray(np.where(rings, 0.2 - np.abs(1 - bars), 1 - bars))


def _noise(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Noise, half of it smoothed to blobs, shape (count, h, w)."""
    noise = rng.normal(size=(count, *shape))
    for k in range(0, count, 2):
        noise[k] = cv2.GaussianBlur(noise[k], (0, 0), rng.uniform(0.5, 6))
    return noise + rng.normal(0, 0.3, (count, 1, 1))


def _edges(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Half planes, frames, checks, full and empty maps, single pixels, shape (count, h, w)."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    maps = np.where(columns < rng.integers(0, width + 1, (count, 1, 1)), 1.0, -1.0)
    maps[1::6] = np.where((rows + columns) % 2, 1.0, -1.0)
    maps[2::6] = np.where((rows == 0) | (columns == 0) | (rows == height - 1) | (columns == width - 1), 1.0, -1.0)
    maps[3::6] = rng.choice([-1.0, 0.0, 1.0], (len(maps[3::6]), 1, 1))
    maps[4::6] = np.where((rows == rng.integers(height)) & (columns == rng.integers(width)), 5.0, -5.0)
    maps[5::6] = np.where(rows == columns, 1.0, -1.0)
    return maps


def _maps(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> list[npt.NDArray[Any]]:
    """A third of each kind, some hard, some huge or tiny, some spoilt, of several dtypes."""
    kinds: tuple[Callable[..., npt.NDArray[np.float64]], ...] = (_drawn, _drawn, _noise, _edges)
    values = np.concatenate([kind(rng, count // len(kinds), shape) for kind in kinds])
    values = np.where(rng.uniform(size=(len(values), 1, 1)) < 0.2, np.where(values > 0, 1.0, -1.0), values)
    values *= 10 ** rng.choice([0, 0, 0, 1, -30, 37], (len(values), 1, 1)).astype(float)
    for k in rng.choice(len(values), len(values) // 20, replace=False):
        values[k].flat[rng.integers(values[k].size)] = rng.choice([np.nan, np.inf, -np.inf])
    with np.errstate(all="ignore"):
        return [one.astype(DTYPES[rng.integers(len(DTYPES))]) for one in values]


def _check(measured: Mapping[Quantity, Measured | Abstained], scale: Scale | NoScale) -> None:
    assert measured
    for quantity, value in measured.items():
        if isinstance(value, Abstained):
            assert value.reason.strip()
        else:
            assert quantity.least <= value.value <= quantity.most
            assert value.unit == quantity.unit
            assert value.unit == "1" or scale


@pytest.mark.parametrize("batch", range(BATCHES))
def test_of_ten_thousand_maps_none_raises(batch: int) -> None:
    rng = np.random.default_rng(batch)
    shape = LARGE if batch % 8 == 0 else GRIDS[batch % len(GRIDS)]
    count = PER_BATCH if shape != LARGE else PER_BATCH // 4
    seen: set[type] = set()
    for number, logits in enumerate(_maps(rng, count, shape) + ([] if shape != LARGE else _maps(rng, 300, (24, 36)))):
        height, width = logits.shape
        step, offset = rng.uniform(0.3, 5, 2), rng.uniform(-20, 20, 2)
        left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
        content = (int(rng.integers(1, width - left + 1)), int(rng.integers(1, height - top + 1)))
        box = Letterbox(
            0, *(content if number % 3 == 0 else (width, height)), *((left, top) if number % 3 == 0 else (0, 0)),
            AxisMap(step[0], offset[0]), AxisMap(step[1], offset[1]),
        )  # fmt: skip
        scale = Scale(*rng.uniform(0.05, 0.19, 2).tolist(), origin="test") if number % 2 else NOT_GIVEN
        field = rng.uniform(size=(height, width)) < 0.8 if number % 5 == 0 else None
        head = outline_round(logits, box, scale, HEAD_SHAPE, field)
        abdomen = outline_round(logits, box, scale, ABDOMEN_SHAPE, field)
        femur = find_shaft(logits, box, scale, field)
        for found in (head, abdomen, femur):
            seen.add(type(found))
            if isinstance(found, Abstained):
                assert found.reason.strip()
            else:
                assert logits.dtype in (np.float32, np.float64)
                assert np.isfinite(found.contour_px).all()
                assert np.isfinite(found.extent)
            if isinstance(found, Outline):
                assert MIN_COVERAGE <= found.coverage <= 1
                assert 0 <= found.roughness <= MAX_ROUGHNESS
                assert 0 <= found.agreement <= 1.0001
                assert 0 <= found.disagreement <= MAX_DISAGREEMENT
        if isinstance(head, Outline):
            _check(measure_head(head), scale)
        if isinstance(abdomen, Outline):
            _check(measure_abdomen(abdomen), scale)
            _check(measure_abdomen(abdomen, anterior_rad=float(rng.uniform(-9, 9))), scale)
        if isinstance(femur, Shaft):
            _check(measure_femur(femur), scale)
    if shape == LARGE:
        assert len(seen) > 1
