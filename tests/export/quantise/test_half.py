"""FP16 by casts: the answers stay, the types are as written, and what FP16 cannot hold is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefetal_devices.errors import CheckFailedError
from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.quantise.half import FLOAT_OPERATORS, in_half
from edgefetal_export.quantise.qdq import quantised
from edgefetal_runtime.infer.backends import open_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.export.quantise.conftest import Subject

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[_opset(19)])).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def _opset(version: int) -> onnx.OperatorSetIdProto:
    return helper.make_opsetid("", version)


def _graph(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, list[float]], outputs: Sequence[str] = ("mask",)
) -> bytes:
    shape = [1, 1, 4, 4]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in constants.items()],
    )
    content: bytes = helper.make_model(graph, opset_imports=[_opset(18)], ir_version=10).SerializeToString()
    return content


def _run(model: bytes, image: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]  # of any type
    return open_backend("onnxruntime-as-written", model).run(image)


@pytest.mark.parametrize("int8", [False, True])
def test_answers_stay_and_the_outside_is_float32(tiny: Subject, int8: bool) -> None:  # noqa: FBT001 - parametrised
    before = quantised(tiny.model, read_int8_recipe("tensorrt"), tiny.of("tensorrt")) if int8 else tiny.model
    after = in_half(before)
    assert in_half(before) == after
    graph = onnx.load_from_string(after).graph
    assert all(value.type.tensor_type.elem_type == FLOAT for value in (*graph.input, *graph.output))
    for image in tiny.images:
        expected, found = _run(before, image), _run(after, image)
        assert set(found) == set(expected) == {"mask", "plane"}
        for name, values in expected.items():
            assert found[name].dtype == np.float32
            # A rounding of a quantised value that tips over costs a whole step of its scale.
            np.testing.assert_allclose(found[name], values, atol=0.05 if int8 else 5e-3)
        assert any((found[name] != expected[name]).any() for name in expected)


def test_every_layer_multiplies_in_half_and_sums_in_float32(tiny: Subject) -> None:
    graph = onnx.load_from_string(in_half(tiny.model)).graph
    types = _types(graph)
    kinds = {(node.op_type, types[node.output[0]]) for node in graph.node if node.op_type != "Cast"}
    assert {("Conv", HALF), ("ConvTranspose", HALF), ("Gemm", HALF), ("Relu", HALF)} <= kinds
    assert all(kind == (FLOAT if operator in FLOAT_OPERATORS else HALF) for operator, kind in kinds)
    assert ("ReduceMean", FLOAT) in kinds


def test_scales_are_half_and_whole_numbers_stay(tiny: Subject) -> None:
    before = onnx.load_from_string(quantised(tiny.model, read_int8_recipe("tensorrt"), tiny.of("tensorrt"))).graph
    after = onnx.load_from_string(in_half(quantised(tiny.model, read_int8_recipe("tensorrt"), tiny.of("tensorrt"))))
    assert ("", 19) in [(entry.domain, entry.version) for entry in after.opset_import]
    types = _types(after.graph)
    pairs = [node for node in after.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in before.node) > 0
    for node in pairs:
        assert types[node.input[1]] == HALF
    stored = {tensor.name: tensor for tensor in after.graph.initializer}
    for tensor in before.initializer:
        if tensor.data_type == TensorProto.INT8:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(stored[tensor.name]))


def test_one_cast_serves_all_readers_and_no_constant_is_left_over() -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["a"], name="a"),
        helper.make_node("Sqrt", ["a"], ["b"], name="b"),
        helper.make_node("Softmax", ["a"], ["c"], name="c"),
        helper.make_node("Mul", ["b", "k"], ["d"], name="d"),
        helper.make_node("Mul", ["c", "k"], ["e"], name="e"),
        helper.make_node("Add", ["d", "e"], ["mask"], name="f"),
    ]
    graph = onnx.load_from_string(in_half(_graph(nodes, {"k": [2.0]}))).graph
    casts = [(node.input[0].partition(":")[0], node.attribute[0].i) for node in graph.node if node.op_type == "Cast"]
    assert sorted(casts) == sorted([("image", HALF), ("a", FLOAT), ("b", HALF), ("c", HALF), ("mask", FLOAT)])
    assert [(tensor.name, tensor.data_type) for tensor in graph.initializer] == [("k:float16", HALF)]


def test_an_output_that_is_read_inside_too_keeps_its_name() -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["mask"], name="a"),
        helper.make_node("Softmax", ["mask"], ["soft"], name="b"),
        helper.make_node("Neg", ["mask"], ["other"], name="c"),
    ]
    model = in_half(_graph(nodes, {}, ("mask", "soft", "other")))
    image = np.linspace(-2, 2, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    found = _run(model, image)
    np.testing.assert_allclose(found["mask"], np.maximum(image, 0), atol=1e-3)
    np.testing.assert_allclose(found["other"], -np.maximum(image, 0), atol=1e-3)
    np.testing.assert_allclose(found["soft"].sum(axis=-1), 1, atol=1e-6)


def test_the_scales_of_a_resize_stay_float32() -> None:
    nodes = [helper.make_node("Resize", ["image", "", "k"], ["mask"], name="a", mode="nearest")]
    graph = onnx.load_from_string(in_half(_graph(nodes, {"k": [1.0, 1.0, 1.0, 1.0]}))).graph
    types = _types(graph)
    resize = next(node for node in graph.node if node.op_type == "Resize")
    assert [types.get(name) for name in resize.input] == [HALF, None, FLOAT]


def test_a_weight_beyond_half_is_refused() -> None:
    nodes = [helper.make_node("Mul", ["image", "k"], ["mask"], name="a")]
    in_half(_graph(nodes, {"k": [65504.0]}))
    with pytest.raises(CheckFailedError, match=r"k holds 6.56e\+04.*--precision fp32"):
        in_half(_graph(nodes, {"k": [-65600.0]}))


@pytest.mark.parametrize(("scale", "fits"), [(6.2e-5, True), (6.0e-5, False), (0.0, False)])
def test_a_scale_that_half_rounds_coarsely_is_refused(scale: float, fits: bool) -> None:  # noqa: FBT001 - likewise
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "k"], ["q"], name="a"),
        helper.make_node("DequantizeLinear", ["q", "k"], ["mask"], name="b"),
    ]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("image", FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("mask", FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(np.array(scale, np.float32), "k")],
    )
    model = helper.make_model(graph, opset_imports=[_opset(18)], ir_version=10).SerializeToString()
    if fits:
        in_half(model)
    else:
        with pytest.raises(CheckFailedError, match=r"scale k .*too small for FP16"):
            in_half(model)
