"""FP16 by explicit casts: what a strongly typed TensorRT network computes in stands in its graph, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference, version_converter

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.quantise.graph import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

# Sums over a whole picture or a row of tokens, and what is divided by them: FP16 has too small a range for those.
FLOAT_OPERATORS: Final = frozenset(
    {
        "GlobalAveragePool",
        "InstanceNormalization",
        "LayerNormalization",
        "Pow",
        "Reciprocal",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "Sqrt",
    }
)
# The first in which QuantizeLinear and DequantizeLinear take scales in FP16; TensorRT 10.3 reads it.
_OPSET: Final = 19
# Inputs that are float32 whatever the picture is in, by operator and place.
_ALWAYS_FLOAT: Final = {"Resize": (1, 2)}
# The smallest number that FP16 holds in full precision, and the largest at all.
_LEAST, _MOST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
_FLOAT: Final = int(TensorProto.FLOAT)
_HALF: Final = int(TensorProto.FLOAT16)
_SUFFIXES: Final = {_FLOAT: "float32", _HALF: "float16"}


def in_half(model: bytes) -> bytes:
    """Let a graph compute in FP16 between its inputs and its outputs, which stay in float32.

    Quantised layers keep their whole numbers; their scales become FP16, and so what comes out of them.

    Args:
        model: a graph in float32, with or without QDQ nodes, of which every tensor's type can be inferred.

    Returns:
        The graph; the same bytes for the same argument.

    Raises:
        CheckFailedError: FP16 cannot hold a weight or a scale.
    """
    proto = version_converter.convert_version(onnx.load_from_string(model), _OPSET)
    graph = proto.graph
    typed = shape_inference.infer_shapes(proto).graph
    values = (*typed.input, *typed.value_info, *typed.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
    writer = _Writer(graph, floats)
    for node in graph.node:
        writer.add(node)
    writer.add_outputs(value.name for value in graph.output)
    # What it says of the types inside is no longer so; everybody infers them anew.
    for part, new in ((graph.node, writer.nodes), (graph.initializer, writer.weights.values()), (graph.value_info, ())):
        del part[:]
        part.extend(new)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class _Writer:
    """Writes a graph's nodes anew, with a cast wherever the type changes.

    Attributes:
        nodes: what was written.
        weights: the constants that it uses, by name.
    """

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        """Begin with nothing written.

        Args:
            graph: the graph in float32.
            floats: names of its float32 tensors that are no constants.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._floats = floats - set(self._constants)
        # What each float tensor is called, by its name in the given graph and its type.
        self._names: dict[tuple[str, int], str] = {(value.name, _FLOAT): value.name for value in graph.input}

    def add(self, node: onnx.NodeProto) -> None:
        """Write a node, with the casts that it needs before it."""
        to = _type_of(node)
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            self._require_full_precision(node.input[1])
        free = _ALWAYS_FLOAT.get(node.op_type, ())
        new = onnx.NodeProto()
        new.CopyFrom(node)
        del new.input[:], new.output[:]
        new.input.extend(self._read(name, _FLOAT if place in free else to) for place, name in enumerate(node.input))
        for name in node.output:
            if name in self._floats:
                self._names[name, to] = name if to == _FLOAT else _called(name, to)
                new.output.append(self._names[name, to])
            else:
                new.output.append(name)
        self.nodes.append(new)

    def add_outputs(self, names: Iterable[str]) -> None:
        """Write what turns the graph's outputs back into float32, under their own names."""
        for name in names:
            if name in self._floats and (name, _FLOAT) not in self._names:
                self.nodes.append(_cast(self._names[name, _HALF], name, _FLOAT))

    def _require_full_precision(self, scale: str) -> None:
        """Refuse scales that FP16 rounds coarsely or to nothing, since a whole channel is multiplied by each.

        Raises:
            CheckFailedError: one is too small.
        """
        least = float(np.abs(numpy_helper.to_array(self._constants[scale])).min())
        if least < _LEAST:
            message = f"The scale {scale} ({least:.2g}) is too small for FP16; build with --precision fp16 or fp32."
            raise CheckFailedError(message)

    def _read(self, name: str, to: int) -> str:
        """Return what a tensor is called in a type; write the cast or the constant where there is none yet."""
        if name in self._constants:
            tensor = self._constants[name]
            if tensor.data_type == _FLOAT and to == _HALF:
                name = _called(name, to)
                tensor = self.weights.get(name) or _constant(tensor, name)
            self.weights[name] = tensor
            return name
        if name not in self._floats:
            return name
        if (name, to) not in self._names:
            other = _FLOAT if to == _HALF else _HALF
            # The graph's own output comes last, and may be wanted before.
            self._names[name, to] = name if to == _FLOAT else _called(name, to)
            self.nodes.append(_cast(self._names[name, other], self._names[name, to], to))
        return self._names[name, to]


def _type_of(node: onnx.NodeProto) -> int:
    """Return what a node's float inputs and outputs are in."""
    return _FLOAT if node.op_type in FLOAT_OPERATORS or node.op_type == "Cast" else _HALF


def _called(name: str, to: int) -> str:
    return f"{name}:{_SUFFIXES[to]}"


def _cast(name: str, new_name: str, to: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [new_name], name=f"{name}:to_{_SUFFIXES[to]}", to=to)


def _constant(tensor: TensorProto, name: str) -> TensorProto:
    """Turn a constant into FP16.

    Raises:
        CheckFailedError: it is too large.
    """
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _MOST:
        message = f"{tensor.name} holds {largest:.3g}, which FP16 cannot; build with --precision fp32."
        raise CheckFailedError(message)
    return numpy_helper.from_array(values.astype(np.float16), name)
