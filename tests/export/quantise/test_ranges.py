"""Ranges: the very ones of onnxruntime by its own method, better ones by ours, and never stale ones from the cache."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

from edgefetal_calibration.ranges import RangeFrame, frame_sha256
from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.quantise import ranges as ranges_module
from edgefetal_export.quantise.histogram import BINS, Histogram, Method, count, ranges
from edgefetal_export.quantise.ranges import RangeTable, collect, read_or_collect
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from tests.export.quantise.conftest import Subject

SPEC = PreprocessSpec(height_px=32, width_px=32, mean=0.15, std=0.2)
RECIPE = read_int8_recipe("onnxruntime-x86")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: list[npt.NDArray[np.float32]]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def test_min_max_is_that_of_onnxruntime(tiny: Subject, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.model)
    calibrator = create_calibrator(
        path, [], augmented_model_path=str(tmp_path / "more.onnx"), calibrate_method=CalibrationMethod.MinMax
    )
    calibrator.collect_data(Reader(tiny.images))
    theirs = {name: tuple(end.item() for end in data.range_value) for name, data in calibrator.compute_data().items()}
    ours = tiny.ranges[False][Method.MIN_MAX]
    assert len(theirs) >= 10
    assert set(theirs) <= set(ours)
    for name, ends in theirs.items():
        assert ours[name] == pytest.approx(ends, rel=1e-6)


def _counted(values: npt.NDArray[np.float32]) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, count(values, low, high), int((values == 0).sum()))


def _squared_error(values: npt.NDArray[np.float32], ends: tuple[float, float], *, symmetric: bool) -> float:
    """Of values that were really quantised and brought back."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    step = (high - low) / (254 if symmetric else 255)
    zero = round(-low / step)
    levels = np.clip(np.round(values / step) + zero, 0, 254 if symmetric else 255)
    return float(((levels - zero) * step - values).astype(np.float64).__pow__(2).mean())


HEAVY: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "two-sided": lambda values: values,
    "after a ReLU": lambda values: np.maximum(values, 0),
    "negative": lambda values: -np.abs(values),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", HEAVY)
def test_heavy_tails_are_cut_to_the_least_error(kind: str, symmetric: bool) -> None:  # noqa: FBT001 - a parameter
    values = HEAVY[kind](np.random.default_rng(0).standard_t(5, 100_000)).astype(np.float32)
    found = ranges(_counted(values), symmetric=symmetric)
    errors = {method: _squared_error(values, ends, symmetric=symmetric) for method, ends in found.items()}
    assert errors[Method.MSE] < 0.95 * errors[Method.MIN_MAX]
    assert errors[Method.MSE] == min(errors.values())
    # No cut of a grid is better by more than the search's own steps make it.
    low, high = found[Method.MIN_MAX]
    shares = np.linspace(0.1, 1, 13)
    grid = [(low * left, high * right) for left in shares for right in (shares if low < 0 < high else [left])]
    assert errors[Method.MSE] <= 1.05 * min(_squared_error(values, ends, symmetric=symmetric) for ends in grid)


def test_entropy_cuts_a_lone_value_to_a_smaller_error() -> None:
    values = np.append(np.random.default_rng(0).laplace(size=200_000), 40).astype(np.float32)
    found = ranges(_counted(values), symmetric=True)
    errors = {method: _squared_error(values, ends, symmetric=True) for method, ends in found.items()}
    assert errors[Method.ENTROPY] < 0.8 * errors[Method.MIN_MAX]
    assert found[Method.ENTROPY][1] < 20


def test_nothing_is_cut_where_nothing_sticks_out() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    low, high = ranges(_counted(values), symmetric=False)[Method.MSE]
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


def test_percentile_keeps_what_it_says() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    low, high = ranges(_counted(values), symmetric=False)[Method.PERCENTILE]
    assert (low, high) == pytest.approx((-3.89, 3.89), abs=0.06)


def test_a_tensor_of_zeros_has_a_range() -> None:
    found = ranges(_counted(np.zeros(10, np.float32)), symmetric=False)
    assert set(found.values()) == {(0.0, 0.0)}


def test_values_are_counted_as_numpy_counts_them() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40_000)).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    end = max(-low, high)
    expected, _ = np.histogram(values.astype(np.float64), 2 * BINS, (-end, end))
    counts = count(values[1:], low, high, into=count(values[:1], low, high))
    assert counts.sum() == values.size
    # Values on an edge may fall on either side of it.
    assert np.abs(counts - expected).sum() < 50


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused(tiny: Subject, value: float) -> None:
    image = tiny.images[0].copy()
    image[0, 0, 5, 5] = value
    with pytest.raises(CheckFailedError, match=r"The tensor image .* calibration frame 1.*leave out the frame"):
        collect(tiny.model, lambda: iter([tiny.images[0], image]), symmetric=True)


def test_no_images_are_refused(tiny: Subject) -> None:
    with pytest.raises(InputError, match="no calibration frames"):
        collect(tiny.model, lambda: iter([]), symmetric=True)


def _frames(seed: int = 0, number: int = 3) -> list[RangeFrame]:
    pictures = np.random.default_rng(seed).integers(0, 255, (number, 40, 50), dtype=np.uint8)

    def frame(pixels: npt.NDArray[np.uint8]) -> RangeFrame:
        return RangeFrame("a", "s", frame_sha256(pixels), "head", "hc18", 50, 40, 0.0, 0.0, 0.0, lambda: pixels)

    return [frame(pixels) for pixels in pictures]


def _other_weights(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    tensor = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return bytes(proto.SerializeToString())


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "weights": lambda a: a | {"model": _other_weights(a["model"])},
    "data": lambda a: a | {"frames": _frames(seed=1)},
    "order": lambda a: a | {"frames": a["frames"][::-1]},
    "recipe": lambda a: a | {"recipe": RECIPE.model_copy(update={"seven_bit_weights": False})},
    "recipe's name": lambda a: a | {"recipe": RECIPE.model_copy(update={"name": "other"})},
    "preprocessing": lambda a: a | {"spec": SPEC.model_copy(update={"mean": 0.15001})},
}


@pytest.fixture
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time that ranges are collected anew."""
    calls: list[int] = []
    real = ranges_module.collect

    def counting(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(ranges_module, "collect", counting)
    return calls


@pytest.fixture
def arguments(tiny: Subject) -> dict[str, Any]:
    return {"model": tiny.model, "recipe": RECIPE, "spec": SPEC, "frames": _frames()}


def test_the_cache_is_used_where_nothing_changed(
    arguments: dict[str, Any], tmp_path: Path, counted_calls: list[int]
) -> None:
    seen: list[int] = []
    first = read_or_collect(tmp_path / "ranges.json", **arguments, on_image=lambda: seen.append(1))
    assert len(seen) == 6
    again = read_or_collect(tmp_path / "ranges.json", **arguments, on_image=lambda: seen.append(1))
    assert len(seen) == 12
    assert len(counted_calls) == 1
    assert again == first
    assert set(first.ranges) == set(Method)
    assert read_or_collect(None, **arguments) == first


@pytest.mark.parametrize("change", CHANGES)
def test_the_cache_is_not_used_where_anything_changed(
    arguments: dict[str, Any], tmp_path: Path, counted_calls: list[int], change: str
) -> None:
    cache = tmp_path / "ranges.json"
    first = read_or_collect(cache, **arguments)
    second = read_or_collect(cache, **CHANGES[change](arguments))
    assert len(counted_calls) == 2
    assert second.key != first.key
    assert RangeTable.model_validate_json(cache.read_bytes()) == second


def test_another_onnxruntime_collects_anew(
    arguments: dict[str, Any], tmp_path: Path, counted_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_or_collect(tmp_path / "ranges.json", **arguments)
    monkeypatch.setattr(ranges_module.onnxruntime, "__version__", "0.0.1")
    read_or_collect(tmp_path / "ranges.json", **arguments)
    assert len(counted_calls) == 2


@pytest.mark.parametrize("field", ["graph", "frames", "preprocess", "recipe", "recipe_sha256", "onnxruntime", "rules"])
def test_every_field_of_the_key_counts(
    arguments: dict[str, Any], tmp_path: Path, counted_calls: list[int], field: str
) -> None:
    cache = tmp_path / "ranges.json"
    table = json.loads(read_or_collect(cache, **arguments).model_dump_json())
    table["key"][field] = 0 if field == "rules" else "0"
    cache.write_text(json.dumps(table))
    read_or_collect(cache, **arguments)
    assert len(counted_calls) == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b'{"key": 3}', b"\xff\xfe"])
def test_a_cache_that_is_none_is_written_over(
    arguments: dict[str, Any], tmp_path: Path, counted_calls: list[int], content: bytes
) -> None:
    cache = tmp_path / "ranges.json"
    cache.write_bytes(content)
    found = read_or_collect(cache, **arguments)
    assert len(counted_calls) == 1
    assert RangeTable.model_validate_json(cache.read_bytes()) == found
