"""Blocks: every layer one, named after its weights, with what follows it; and what each of them computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from edgefetal_devices.profile import int8_recipe_names, read_int8_recipe
from edgefetal_export.quantise.blocks import BUDGET_REASON, OUTPUT_REASON, blocks_of, layer_groups
from edgefetal_export.quantise.qdq import quantised

if TYPE_CHECKING:
    from tests.export.quantise.conftest import Subject

LAYERS = ("down.0", "down.1", "middle", "up", "final", "head")


def test_every_layer_is_a_block_with_what_follows_it(tiny: Subject) -> None:
    graph = onnx.load_from_string(tiny.model).graph
    kinds = {node.name: node.op_type for node in graph.node}
    blocks = {block.name: block for block in blocks_of(graph)}
    assert set(blocks) == set(LAYERS)
    assert [kinds[name] for name in blocks["down.0"].nodes] == ["Conv", "Relu"]
    assert [kinds[name] for name in blocks["up"].nodes] == ["ConvTranspose", "Concat"]
    assert {name for name, block in blocks.items() if block.last} == {"final", "head"}
    members = [name for block in blocks.values() for name in block.nodes]
    assert sorted(members) == sorted(kinds), "each node in one block"


def test_layers_of_a_transformer_have_names_that_people_know(tiny_transformer: Subject) -> None:
    blocks = blocks_of(onnx.load_from_string(tiny_transformer.model).graph)
    names = [f"layers.{k}.{layer}" for k in (0, 1) for layer in ("q", "k", "v", "out", "fc1", "fc2")]
    assert {block.name for block in blocks} == {"patches", "head", *names}
    assert [block.name for block in blocks if block.last] == ["head"]


@pytest.mark.parametrize("name", int8_recipe_names())
def test_groups_say_what_computes_in_what_and_why(tiny: Subject, name: str) -> None:
    recipe = read_int8_recipe(name)
    blocks = blocks_of(onnx.load_from_string(tiny.model).graph)
    groups = layer_groups(quantised(tiny.model, recipe, tiny.of(name), ["middle"]), recipe, blocks, half=False)
    by_reason = {group.reason: group for group in groups}
    assert by_reason[recipe.reason].precision == "int8"
    assert set(by_reason[recipe.reason].layers) == {"down.0", "down.1", "up"}
    assert by_reason[OUTPUT_REASON].precision == by_reason[BUDGET_REASON].precision == "float32"
    assert set(by_reason[OUTPUT_REASON].layers) == {"final", "head"}
    assert by_reason[BUDGET_REASON].layers == ("middle",)


def test_a_float_graph_has_nothing_in_int8(tiny: Subject) -> None:
    recipe = read_int8_recipe("tensorrt")
    groups = layer_groups(tiny.model, recipe, blocks_of(onnx.load_from_string(tiny.model).graph), half=False)
    assert {group.precision for group in groups} == {"float32"}
