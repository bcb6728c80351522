"""What the quantising modules ask of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Collection

DEQUANTIZE, QUANTIZE = "DequantizeLinear", "QuantizeLinear"
_ALWAYS_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")


def initializer_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of a graph's constants."""
    return {tensor.name for tensor in graph.initializer}


def is_weighted(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Say whether a node multiplies by trained weights; a product of two activations, as in attention, does not.

    Args:
        node: of a float graph, or of a quantised one if `constants` holds what its weights are called there.
        constants: names of the tensors that are the same for every input.
    """
    if node.op_type == "MatMul":
        return any(name in constants for name in node.input)
    return node.op_type in _ALWAYS_WEIGHTED


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Map every tensor that a node makes to that node."""
    return {name: node for node in graph.node for name in node.output}


def last_layers(graph: onnx.GraphProto) -> set[str]:
    """Return the name of the last weighted node before each output of a float graph."""
    constants, makers = initializer_names(graph), producers(graph)
    order = {node.name: place for place, node in enumerate(graph.node)}
    nearest = (_weighted_behind(output.name, makers, constants) for output in graph.output)
    return {max(names, key=order.__getitem__) for names in nearest if names}


def _weighted_behind(tensor: str, makers: dict[str, onnx.NodeProto], constants: Collection[str]) -> set[str]:
    """Walk back from a tensor to the nearest weighted node on every way; return their names."""
    seen: set[str] = set()
    found: set[str] = set()
    open_tensors = [tensor]
    while open_tensors:
        node = makers.get(open_tensors.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if is_weighted(node, constants):
            found.add(node.name)
        else:
            open_tensors.extend(node.input)
    return found


def float_activations(graph: onnx.GraphProto) -> list[str]:
    """Return the float32 tensors that depend on the input, in the order in which they come about.

    Args:
        graph: with inferred types.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = initializer_names(graph)
    made = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
    return [name for name in made if name not in constants and types.get(name) == onnx.TensorProto.FLOAT]
