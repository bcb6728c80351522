"""A graph as a row of named blocks, each a layer with weights and what follows it until the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from edgefetal_export.quantise.graph import DEQUANTIZE, QUANTIZE, initializer_names, is_weighted, last_layers, producers
from edgefetal_export.quantise.half import FLOAT_OPERATORS
from edgefetal_runtime.infer.bundle import LayerGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_devices.profile import Int8Recipe

INT8, FLOAT16, FLOAT32 = "int8", "float16", "float32"
OUTPUT_REASON = "the last layer before an answer, which takes eight bits worst and costs little"
BUDGET_REASON = "put back into float to stay within the accuracy budget"
OPERATOR_REASON = "without weights, and between tensors that are not quantised in this graph"
SUM_REASON = "sums over a whole picture or row, for which FP16 has too small a range"

_PARAMETERS = (".weight", ".bias")


@dataclass(frozen=True)
class Block:
    """A part of a float graph.

    Args:
        name: the module path of its weights, or the name of its first node.
        weighted: name of the node that has the weights.
        nodes: names of all its nodes, the weighted one first.
        last: whether no other weights stand between it and an output of the graph.
    """

    name: str
    weighted: str
    nodes: tuple[str, ...]
    last: bool


def blocks_of(graph: onnx.GraphProto) -> tuple[Block, ...]:
    """Part a float graph into blocks, in its order.

    A node without weights belongs to the last of the weighted nodes that it depends on with no other between; one that
    depends on none, such as a change of the input's shape, belongs to no block.

    Args:
        graph: with a name for every node, as in what `qdq.prepared` returns.
    """
    constants, makers = initializer_names(graph), producers(graph)
    order = {node.name: place for place, node in enumerate(graph.node)}
    owners: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for node in graph.node:
        if is_weighted(node, constants):
            owners[node.name] = node.name
        else:
            before = [
                owners[makers[name].name] for name in node.input if name in makers and makers[name].name in owners
            ]
            if not before:
                continue
            owners[node.name] = max(before, key=order.__getitem__)
        members.setdefault(owners[node.name], []).append(node.name)
    nodes, last = {node.name: node for node in graph.node}, last_layers(graph)
    taken: dict[str, int] = {}
    blocks = []
    for weighted, names in members.items():
        path = _module_path(nodes[weighted], graph, constants)
        taken[path] = taken.get(path, 0) + 1
        # The same weights may be used twice.
        name = path if taken[path] == 1 else f"{path}#{taken[path]}"
        blocks.append(Block(name, weighted, tuple(names), last=weighted in last))
    return tuple(blocks)


def _module_path(node: onnx.NodeProto, graph: onnx.GraphProto, constants: set[str]) -> str:
    """Name a layer after its parameters, or after the bias added to it where the exporter renamed its weights."""
    adders = [other for other in graph.node if other.op_type == "Add" and set(node.output) & set(other.input)]
    for parameter in (name for user in (node, *adders) for name in user.input if name in constants):
        # Of layers whose parameters are equal the exporter keeps one, which then names none of them.
        users = sum(parameter in other.input for other in graph.node)
        for suffix in _PARAMETERS:
            if users == 1 and parameter.endswith(suffix):
                return str(parameter.removesuffix(suffix))
    return str(node.name)


def layer_groups(model: bytes, recipe: Int8Recipe, blocks: Sequence[Block], *, half: bool) -> tuple[LayerGroup, ...]:
    """Say what every block of a quantised graph computes in and why, as its DequantizeLinear nodes show.

    Args:
        model: the quantised graph.
        recipe: what it was quantised by.
        blocks: of the float graph that it was made from.
        half: whether what is not quantised computes in FP16.

    Returns:
        Groups that are not empty: blocks in int8, last layers, blocks put back into float, and operators in float.
    """
    graph = onnx.load_from_string(model).graph
    makers = producers(graph)
    names = {block.weighted: block.name for block in blocks}
    whole = {node.name for node in graph.node if _in_whole_numbers(node, makers, weighted=node.name in names)}
    last = {block.weighted for block in blocks if block.last and recipe.float_outputs}
    operators = {
        node.op_type
        for node in graph.node
        if node.op_type not in (QUANTIZE, DEQUANTIZE) and node.name not in names and node.name not in whole
    }
    floating = [node for node in names if node not in whole]
    precision = FLOAT16 if half else FLOAT32
    summing = operators & FLOAT_OPERATORS if half else set()
    groups = (
        ([names[node] for node in names if node in whole], INT8, recipe.reason),
        ([names[node] for node in floating if node in last], precision, OUTPUT_REASON),
        ([names[node] for node in floating if node not in last], precision, BUDGET_REASON),
        (sorted(operators - summing), precision, OPERATOR_REASON),
        (sorted(summing), FLOAT32, SUM_REASON),
    )
    return tuple(LayerGroup(layers=tuple(layers), precision=to, reason=why) for layers, to, why in groups if layers)


def _in_whole_numbers(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], *, weighted: bool) -> bool:
    """Say whether all that a node computes with comes out of DequantizeLinear: its weights, or all but constants."""
    factors = node.input[:2] if weighted else [name for name in node.input if name in makers]
    return bool(factors) and all(name in makers and makers[name].op_type == DEQUANTIZE for name in factors)
