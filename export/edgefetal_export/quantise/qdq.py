"""INT8 by explicit QuantizeLinear and DequantizeLinear nodes, placed by onnxruntime's quantiser."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.quantise.blocks import blocks_of
from edgefetal_export.quantise.graph import float_activations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from edgefetal_devices.profile import Int8Recipe

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from giving advice on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def prepared(model: bytes) -> bytes:
    """Fold constants, infer every shape, and name every node: once, before ranges are taken.

    The names of tensors, nodes and blocks that this package speaks of are those of the graph that this returns.

    Args:
        model: a float graph.

    Raises:
        CheckFailedError: shapes cannot be inferred.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        source.write_bytes(model)
        quant_pre_process(source, target)
        proto = onnx.load(target)
    given = {node.name for node in proto.graph.node}
    for place, node in enumerate(proto.graph.node):
        if not node.name:
            name = f"{node.op_type}_{place}"
            node.name = name if name not in given else f"{name}_unnamed"
    types = {value.name for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)}
    unknown = [name for node in proto.graph.node for name in node.output if name and name not in types]
    if unknown:
        message = (
            f"onnxruntime cannot infer the type of {unknown[0]}, so it cannot be quantised; export the network for one "
            "fixed input size."
        )
        raise CheckFailedError(message)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def quantised(
    model: bytes, recipe: Int8Recipe, ranges: Mapping[str, tuple[float, float]], float_blocks: Collection[str] = ()
) -> bytes:
    """Quantise a float graph.

    Args:
        model: the float graph, as `prepared` returns it.
        recipe: the target's recipe.
        ranges: the smallest and largest value of each activation that eight bits are to cover.
        float_blocks: names of blocks, as `blocks_of` returns them, that stay in float.

    Returns:
        The graph with explicit QDQ nodes; the same bytes for the same arguments.

    Raises:
        InputError: a block's name is unknown.
        CheckFailedError: an activation has no range.
    """
    proto = onnx.load_from_string(model)
    lacking = [name for name in float_activations(proto.graph) if name not in ranges]
    if lacking:
        message = f"The tensor {lacking[0]} has no range; take the ranges of the very graph that is quantised."
        raise CheckFailedError(message)
    excluded = _float_nodes(proto.graph, recipe, float_blocks)
    data = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in sorted(ranges.items())
        },
    )
    options: dict[str, Any] = {
        "ActivationSymmetric": recipe.symmetric_activations,
        "WeightSymmetric": True,
        "OpTypesToExcludeOutputQuantization": list(recipe.float_results),
        "QuantizeBias": recipe.quantised_bias,
    }
    with _quiet():
        quantiser = QDQQuantizer(
            proto,
            recipe.per_channel,
            recipe.seven_bit_weights,
            _TYPES[recipe.weights],
            _TYPES[recipe.activations],
            data,
            [],
            excluded,
            sorted({*QDQRegistry, *QLinearOpsRegistry} - {*recipe.float_operators}),
            options,
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
        content: bytes = quantiser.model.model.SerializeToString(deterministic=True)
    return content


def _float_nodes(graph: onnx.GraphProto, recipe: Int8Recipe, float_blocks: Collection[str]) -> list[str]:
    """Return the names of the nodes that stay in float, in the graph's order."""
    blocks = {block.name: block for block in blocks_of(graph)}
    strangers = sorted(set(float_blocks) - set(blocks))
    if strangers:
        raise InputError(f"There is no block {strangers[0]!r} in the graph; choose from {', '.join(blocks)}.")
    names = {
        node
        for block in blocks.values()
        if block.name in float_blocks or (block.last and recipe.float_outputs)
        for node in block.nodes
    }
    # A product of two activations, as in attention, stays in float. The quantiser's own option for that does nothing.
    weighted = {block.weighted for block in blocks.values()}
    names.update(node.name for node in graph.node if node.op_type == "MatMul" and node.name not in weighted)
    return [node.name for node in graph.node if node.name in names]
