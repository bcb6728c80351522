"""Static INT8 with onnxruntime's quantiser."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgefetal_export.onnx import INPUT
from edgefetal_runtime.infer.bundle import LayerGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from edgefetal_devices.profile import Int8Recipe

METHOD = "min-max"
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds prepared frames to the quantiser, one at a time."""

    def __init__(self, images: Iterable[npt.NDArray[np.float32]], on_image: Callable[[], None]) -> None:
        self._images: Iterator[npt.NDArray[np.float32]] = iter(images)
        self._on_image = on_image

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Return the next input, or None at the end."""
        image = next(self._images, None)
        if image is None:
            return None
        self._on_image()
        return {INPUT: image}


def quantised_onnx(
    model: bytes,
    recipe: Int8Recipe,
    images: Iterable[npt.NDArray[np.float32]],
    on_image: Callable[[], None] = lambda: None,
) -> bytes:
    """Quantise a float graph.

    Args:
        model: the float graph.
        recipe: the target's recipe.
        images: prepared frames to take the ranges from, each (1, 1, h, w).
        on_image: called after every frame.
    """
    options: dict[str, Any] = {"ActivationSymmetric": recipe.symmetric_activations, "WeightSymmetric": True}
    root_log = logging.getLogger()
    level = root_log.level
    # The quantiser advises on the root logger to preprocess the model, which is what the line below it does.
    root_log.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, shaped, target = (Path(folder) / name for name in ("float.onnx", "shaped.onnx", "int8.onnx"))
            source.write_bytes(model)
            quant_pre_process(source, shaped)
            quantize_static(
                shaped,
                target,
                _Reader(images, on_image),
                quant_format=QuantFormat.QDQ,
                per_channel=recipe.per_channel,
                reduce_range=recipe.seven_bit_weights,
                activation_type=_TYPES[recipe.activations],
                weight_type=_TYPES[recipe.weights],
                extra_options=options,
            )
            return target.read_bytes()
    finally:
        root_log.setLevel(level)


def layer_groups(model: bytes, recipe: Int8Recipe) -> tuple[LayerGroup, ...]:
    """Say which operators of a quantised graph compute in what, as its DequantizeLinear nodes show."""
    graph = onnx.load_from_string(model).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    quantised: set[str] = set()
    floating: set[str] = set()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        inputs = [producers.get(name) for name in node.input if name in producers]
        (quantised if inputs and all(op == "DequantizeLinear" for op in inputs) else floating).add(node.op_type)
    groups = [LayerGroup(layers=tuple(sorted(quantised)), precision="int8", reason=recipe.reason)]
    if floating:
        reason = "not between quantised tensors in the graph that onnxruntime's quantiser made"
        groups.append(LayerGroup(layers=tuple(sorted(floating)), precision="float32", reason=reason))
    return tuple(groups)
