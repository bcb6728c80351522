"""Ranges of a float graph's activations over calibration frames, and a cache that is never stale."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from pydantic import BaseModel, ConfigDict, ValidationError

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.quantise.graph import float_activations
from edgefetal_export.quantise.histogram import Histogram, Method, count, ranges
from edgefetal_runtime.atomic import json_bytes, write_file
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.ranges import RangeFrame
    from edgefetal_devices.profile import Int8Recipe
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

    Images = Callable[[], Iterator[npt.NDArray[np.float32]]]

# Raised whenever this package chooses ranges otherwise, so that what an earlier one chose is not used.
RULES = 1
_ERRORS_ONLY = 3


class RangeKey(BaseModel):
    """All that ranges depend on; a table is used again only where every field is the same.

    Args:
        graph: SHA-256 of the prepared float graph.
        frames: SHA-256 over the frames' content hashes, in order.
        preprocess: SHA-256 of the preprocessing spec.
        recipe: name of the INT8 recipe.
        recipe_sha256: SHA-256 of its fields.
        onnxruntime: version that ran the graph.
        rules: `RULES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: str
    frames: str
    preprocess: str
    recipe: str
    recipe_sha256: str
    onnxruntime: str
    rules: int = RULES


class RangeTable(BaseModel):
    """The range of every activation by every method.

    Args:
        key: what they depend on.
        ranges: for each method, the smallest and largest value of each tensor that eight bits are to cover.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: RangeKey
    ranges: dict[Method, dict[str, tuple[float, float]]]


def range_key(model: bytes, recipe: Int8Recipe, spec: PreprocessSpec, frames: Sequence[RangeFrame]) -> RangeKey:
    """Return what the ranges of a prepared graph over frames depend on."""
    return RangeKey(
        graph=hashlib.sha256(model).hexdigest(),
        frames=hashlib.sha256("".join(frame.sha256 for frame in frames).encode()).hexdigest(),
        preprocess=hashlib.sha256(spec.model_dump_json().encode()).hexdigest(),
        recipe=recipe.name,
        recipe_sha256=hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        onnxruntime=onnxruntime.__version__,
    )


def read_or_collect(
    cache: Path | None,
    model: bytes,
    recipe: Int8Recipe,
    spec: PreprocessSpec,
    frames: Sequence[RangeFrame],
    on_image: Callable[[], None] = lambda: None,
) -> RangeTable:
    """Take the ranges from a cache if it holds those of this graph, recipe, preprocessing and frames; else collect.

    Args:
        cache: JSON file, written or written over where it holds others or none; None for no cache.
        model: the float graph, as `qdq.prepared` returns it.
        recipe: the target's recipe.
        spec: the preprocessing.
        frames: the calibration frames.
        on_image: called after every frame of each of the two passes, and as often when the cache is used.

    Raises:
        CheckFailedError: an activation is not finite.
        OutputError: the cache cannot be written.
    """
    key = range_key(model, recipe, spec, frames)
    cached = None if cache is None else _read(cache)
    if cached is not None and cached.key == key:
        for _ in range(2 * len(frames)):
            on_image()
        return cached

    def images() -> Iterator[npt.NDArray[np.float32]]:
        for frame in frames:
            yield preprocess(frame.pixels(), spec)[0]

    found = collect(model, images, symmetric=recipe.symmetric_activations, on_image=on_image)
    table = RangeTable(key=key, ranges=found)
    if cache is not None:
        write_file(cache, json_bytes(table.model_dump(mode="json")))
    return table


def _read(cache: Path) -> RangeTable | None:
    """Read a cached table; None for a file that is missing or none of this version's."""
    try:
        return RangeTable.model_validate(json.loads(cache.read_bytes()))
    except (OSError, ValueError, ValidationError, RecursionError):
        return None


def collect(
    model: bytes, images: Images, *, symmetric: bool, on_image: Callable[[], None] = lambda: None
) -> dict[Method, dict[str, tuple[float, float]]]:
    """Run a float graph over images twice: for the ends of every activation, and to count its values between them.

    Args:
        model: the float graph, as `qdq.prepared` returns it.
        images: yields the prepared frames, each (1, 1, h, w), anew at every call.
        symmetric: whether the ranges will be made symmetric about zero.
        on_image: called after every frame of each pass.

    Returns:
        For each method the range of each tensor by its name.

    Raises:
        CheckFailedError: an activation is not finite.
        InputError: there are no images.
    """
    names, run = _every_activation(model)
    ends: dict[str, tuple[float, float]] = {}
    for number, image in enumerate(images()):
        for name, values in zip(names, run(image), strict=True):
            low, high = float(values.min()), float(values.max())
            # A NaN anywhere makes both NaN.
            if not (np.isfinite(low) and np.isfinite(high)):
                message = (
                    f"The tensor {name} of the float graph is not finite for calibration frame {number}, so it has no "
                    "range; mend the network, or leave out the frame."
                )
                raise CheckFailedError(message)
            old_low, old_high = ends.get(name, (low, high))
            ends[name] = min(low, old_low), max(high, old_high)
        on_image()
    if not ends:
        raise InputError("There are no calibration frames to take ranges from; give a dataset.")
    counts: dict[str, npt.NDArray[np.int64]] = {}
    zeros = dict.fromkeys(names, 0)
    for image in images():
        for name, values in zip(names, run(image), strict=True):
            counts[name] = count(values, *ends[name], into=counts.get(name))
            zeros[name] += values.size - int(np.count_nonzero(values))
        on_image()
    by_tensor = {name: ranges(Histogram(*ends[name], counts[name], zeros[name]), symmetric=symmetric) for name in names}
    return {method: {name: found[method] for name, found in by_tensor.items()} for method in Method}


def _every_activation(
    model: bytes,
) -> tuple[list[str], Callable[[npt.NDArray[np.float32]], Sequence[npt.NDArray[np.float32]]]]:
    """Load a graph so that it answers with all its float activations; return their names, and what runs it."""
    proto = onnx.load_from_string(model)
    names = float_activations(proto.graph)
    known: Mapping[str, onnx.ValueInfoProto] = {value.name: value for value in proto.graph.value_info}
    given = {value.name for value in (*proto.graph.output, *proto.graph.input)}
    proto.graph.output.extend(known[name] for name in names if name not in given)
    source = proto.graph.input[0].name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # An optimiser would take out the tensors that are asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    made = [name for name in names if name != source]

    def run(image: npt.NDArray[np.float32]) -> Sequence[npt.NDArray[np.float32]]:
        answers = dict(zip(made, session.run(made, {source: image}), strict=True)) | {source: image}
        return [answers[name] for name in names]

    return names, run
