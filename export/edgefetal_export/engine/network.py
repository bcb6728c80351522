"""A graph as TensorRT reads it: strongly typed, so that every layer's precision stands in the graph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgefetal_devices.errors import CheckFailedError

if TYPE_CHECKING:
    from edgefetal_runtime.infer.tensorrt.api import TensorRT

INT8, FP16, FP32 = "int8", "fp16", "fp32"
# Layers that multiply, by TensorRT's names of their kinds.
_MULTIPLYING: Final = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_PRECISIONS: Final = {"INT8": INT8, "HALF": FP16, "FLOAT": FP32}
_ONNX_LAYER: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class TypedLayer:
    """A layer that multiplies.

    Args:
        name: of its node in the graph.
        precision: what it multiplies in, as the graph says: `int8`, `fp16` or `fp32`.
    """

    name: str
    precision: str


@dataclass(frozen=True, eq=False)
class ReadGraph:
    """A graph that TensorRT has read.

    Args:
        builder: what builds it.
        network: TensorRT's network.
        parser: whose memory the network's weights lie in, so it lives as long.
        layers: the layers that multiply, in the graph's order.
    """

    builder: Any
    network: Any
    parser: Any
    layers: tuple[TypedLayer, ...]


def read_graph(tensorrt: TensorRT, logger: Any, graph: bytes) -> ReadGraph:  # noqa: ANN401 - TensorRT has no types
    """Let TensorRT read a graph.

    Args:
        tensorrt: the module.
        logger: as `make_logger` makes it.
        graph: ONNX, whole.

    Raises:
        CheckFailedError: TensorRT does not take it; names the operator and the node.
    """
    module = tensorrt.module
    builder = module.Builder(logger)
    # TensorRT 10 has to be told; 11 knows no other networks and takes the flag all the same.
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    # Of some rubbish the parser makes a network of nothing.
    if not parser.parse(graph) or network.num_outputs == 0:
        raise CheckFailedError(_refusal(tensorrt, parser))
    return ReadGraph(builder, network, parser, _multiplying(module, network))


def onnx_names(metadata: str) -> tuple[str, ...]:
    """Return the graph's nodes that TensorRT's metadata of a layer names."""
    return tuple(_ONNX_LAYER.findall(metadata))


def _refusal(tensorrt: TensorRT, parser: Any) -> str:  # noqa: ANN401 - likewise
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    of_nodes = [
        f"operator {error.node_operator()} of node {error.node_name() or error.node()!r} ({error.desc()})"
        for error in errors
        if error.node_operator()
    ]
    if of_nodes:
        return (
            f"{tensorrt.title} does not take {'; '.join(of_nodes)}. Replace it in the network by "
            "what TensorRT has, and build the bundle anew."
        )
    why = "; ".join(error.desc() for error in errors) or "no reason given"
    return f"{tensorrt.title} cannot read the graph ({why}); build the bundle anew."


def _multiplying(module: Any, network: Any) -> tuple[TypedLayer, ...]:  # noqa: ANN401 - likewise
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    kinds = {getattr(module.LayerType, name) for name in _MULTIPLYING}
    dequantised = {layer.get_output(0).name for layer in layers if layer.type == module.LayerType.DEQUANTIZE}
    return tuple(_typed(layer, dequantised) for layer in layers if layer.type in kinds)


def _typed(layer: Any, dequantised: set[str]) -> TypedLayer:  # noqa: ANN401 - likewise
    # The picture and the weights; a bias comes third and is never quantised.
    factors = [layer.get_input(place) for place in range(min(layer.num_inputs, 2))]
    whole = len(factors) > 1 and all(factor is not None and factor.name in dequantised for factor in factors)
    named = onnx_names(layer.metadata)
    precision = INT8 if whole else _PRECISIONS.get(layer.get_output(0).dtype.name, layer.get_output(0).dtype.name)
    return TypedLayer(named[0] if named else layer.name, precision)
