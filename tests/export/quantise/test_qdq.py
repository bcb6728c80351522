"""The four recipes give the nodes that they promise, what is to stay float does, and bytes are the same twice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_devices.profile import int8_recipe_names, read_int8_recipe
from edgefetal_export.quantise.histogram import Method
from edgefetal_export.quantise.qdq import prepared, quantised
from edgefetal_runtime.infer.backends import open_backend

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.quantise.conftest import Subject

INT8, UINT8, INT32 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32
# By recipe: type of activations, whether their zero points are all 0, largest level of a weight, type of biases.
PROMISES = {
    "onnxruntime-x86": (UINT8, False, 64, INT32),
    "onnxruntime-arm": (INT8, False, 127, INT32),
    "openvino": (INT8, True, 127, None),
    "tensorrt": (INT8, True, 127, None),
}


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _dequantised(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}


def test_every_recipe_has_a_promise() -> None:
    assert set(PROMISES) == set(int8_recipe_names())


@pytest.mark.parametrize("name", PROMISES)
def test_nodes_are_those_of_the_recipe(tiny: Subject, name: str) -> None:
    kind, symmetric, largest, bias_kind = PROMISES[name]
    model = onnx.load_from_string(quantised(tiny.model, read_int8_recipe(name), tiny.of(name)))
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    constants, dequantised = _constants(graph), _dequantised(graph)
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert pairs
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == kind
        assert not symmetric or not onnx.numpy_helper.to_array(zero).any()
    if not symmetric:
        assert any(onnx.numpy_helper.to_array(constants[node.input[2]]) != 0 for node in pairs)
    levels = []
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or node.input[1] not in dequantised:
            continue
        weight = dequantised[node.input[1]]
        stored = onnx.numpy_helper.to_array(constants[weight.input[0]])
        axis = 1 if node.op_type == "ConvTranspose" else 0
        assert stored.dtype == np.int8
        assert {attribute.name: attribute.i for attribute in weight.attribute}["axis"] == axis
        assert list(constants[weight.input[1]].dims) == [stored.shape[axis]]
        assert not onnx.numpy_helper.to_array(constants[weight.input[2]]).any()
        levels.append(np.abs(stored.astype(int)).max())
        bias = constants.get(node.input[2])
        if bias_kind is None:
            assert bias is not None
            assert bias.data_type == onnx.TensorProto.FLOAT
        else:
            assert constants[dequantised[node.input[2]].input[0]].data_type == bias_kind
    assert len(levels) == 4
    assert max(levels) == largest


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize("method", Method)
def test_answers_are_nearly_those_of_the_float_graph(tiny: Subject, name: str, method: Method) -> None:
    graph = open_backend("onnxruntime", quantised(tiny.model, read_int8_recipe(name), tiny.of(name, method)), 1)
    reference = open_backend("onnxruntime", tiny.model, 1)
    for image in tiny.images[:2]:
        ours, floats = graph.run(image), reference.run(image)
        for output in ("mask", "plane"):
            assert np.abs(ours[output] - floats[output]).mean() < 0.15 * np.abs(floats[output]).mean()
        assert np.abs(ours["mask"] - floats["mask"]).max() > 0


@pytest.mark.parametrize("name", PROMISES)
def test_the_last_layer_of_each_output_stays_float(tiny: Subject, name: str) -> None:
    recipe = read_int8_recipe(name)
    for flag in (True, False):
        graph = onnx.load_from_string(
            quantised(tiny.model, recipe.model_copy(update={"float_outputs": flag}), tiny.of(name))
        ).graph
        constants = _constants(graph)
        kept = [tensor for tensor in ("final.weight", "head.weight") if tensor in constants]
        assert kept == (["final.weight", "head.weight"] if flag else [])
        if flag:
            made = {output: node.op_type for node in graph.node for output in node.output}
            assert [made[output.name] for output in graph.output] == ["Conv", "Gemm"]


@pytest.mark.parametrize("name", ["openvino", "tensorrt"])
def test_nothing_comes_between_a_layer_and_its_activation(tiny: Subject, name: str) -> None:
    graph = onnx.load_from_string(quantised(tiny.model, read_int8_recipe(name), tiny.of(name))).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    activations = [node for node in graph.node if node.op_type == "Relu"]
    assert len(activations) == 3
    assert {made[node.input[0]] for node in activations} == {"Conv"}


@pytest.mark.parametrize("name", PROMISES)
def test_a_transformer_keeps_its_norms_sums_and_attention_in_float(tiny_transformer: Subject, name: str) -> None:
    recipe = read_int8_recipe(name)
    content = quantised(tiny_transformer.model, recipe, tiny_transformer.of(name))
    graph = onnx.load_from_string(content).graph
    quantising = {tensor for node in graph.node if node.op_type == "QuantizeLinear" for tensor in node.output}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    kinds = {node.op_type for node in graph.node}
    assert {"LayerNormalization", "Softmax", "Add"} <= kinds
    assert kinds & {"Erf", "Gelu"}
    for node in graph.node:
        if node.op_type in recipe.float_operators:
            # Their weights and constants are as they were; what they take in may have been quantised for a layer.
            assert not set(node.input[1:]) & dequantised & {f"{n}_DequantizeLinear_Output" for n in _floats(graph)}
            assert not set(node.output) & quantising
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    whole = [node for node in products if set(node.input[:2]) <= dequantised]
    # q, k, v, out, fc1 and fc2 of two layers; the two products of each attention and the head stay float.
    assert len(whole) == 12
    assert len(products) == 12 + 4 + 1
    reference, ours = (open_backend("onnxruntime", model, 1) for model in (tiny_transformer.model, content))
    for image in tiny_transformer.images[:2]:
        floats = reference.run(image)["quality"]
        assert 0 < np.abs(ours.run(image)["quality"] - floats).max() < 0.05


def _floats(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}


def test_a_block_in_float_keeps_its_weights(tiny: Subject) -> None:
    recipe = read_int8_recipe("onnxruntime-x86")
    names = _constants(onnx.load_from_string(quantised(tiny.model, recipe, tiny.of(recipe.name), ["middle"])).graph)
    assert "middle.weight" in names
    assert "down.1.weight" not in names


def test_an_unknown_block_and_a_missing_range_are_refused(tiny: Subject) -> None:
    recipe = read_int8_recipe("tensorrt")
    with pytest.raises(InputError, match=r"no block 'midle'.*choose from down\.0, "):
        quantised(tiny.model, recipe, tiny.of("tensorrt"), ["midle"])
    ranges = {name: ends for name, ends in tiny.of("tensorrt").items() if name != "image"}
    with pytest.raises(CheckFailedError, match="image has no range"):
        quantised(tiny.model, recipe, ranges)


CODE = """
import hashlib, json, pathlib, sys
from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.quantise.qdq import prepared, quantised
model = prepared(pathlib.Path(sys.argv[1]).read_bytes())
ranges = json.loads(pathlib.Path(sys.argv[2]).read_text())
print(hashlib.sha256(quantised(model, read_int8_recipe("onnxruntime-x86"), ranges)).hexdigest())
"""


def test_bytes_are_the_same_in_every_process(tiny: Subject, tmp_path: Path) -> None:

    recipe = read_int8_recipe("onnxruntime-x86")
    model, ranges = tmp_path / "model.onnx", tmp_path / "ranges.json"
    model.write_bytes(tiny.model)
    ranges.write_text(json.dumps(dict(reversed(tiny.of(recipe.name).items()))))
    here = hashlib.sha256(quantised(prepared(tiny.model), recipe, tiny.of(recipe.name))).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(model), str(ranges)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == here
