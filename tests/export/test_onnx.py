from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from edgefetal_devices.errors import CheckFailedError
from edgefetal_devices.profile import read_profile
from edgefetal_export.onnx import OPSET, check_parity, onnx_from_network
from edgefetal_export.quantise.static import layer_groups, quantised_onnx
from edgefetal_export.teachers.multitask_unet import MultitaskUnet, MultitaskUnetConfig
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import numpy.typing as npt

SPEC = PreprocessSpec(height_px=64, width_px=96, mean=0.15, std=0.2)


@pytest.fixture(scope="module")
def network() -> MultitaskUnet:
    torch.manual_seed(0)
    config = MultitaskUnetConfig(structures=("head",), planes=("head", "none"), features=(8, 8, 16, 16, 24, 8))
    made = MultitaskUnet(config)
    with torch.no_grad():  # statistics other than 0 and 1, so that folding them is put to the test
        for _ in range(4):
            made.train()(torch.rand(4, 1, 64, 96) * 3 - 1)
    return made.eval()


@pytest.fixture(scope="module")
def images() -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return [rng.normal(0, 1, (1, 1, 64, 96)).astype(np.float32) for _ in range(20)]


@pytest.fixture(scope="module")
def exported(network: MultitaskUnet) -> bytes:
    return onnx_from_network(network, SPEC)


def test_graph_answers_as_the_network(
    network: MultitaskUnet, exported: bytes, images: list[npt.NDArray[np.float32]]
) -> None:
    assert check_parity(network, open_backend("onnxruntime", exported), images) < 1e-4


def test_graph_has_the_contract(exported: bytes) -> None:
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET
    assert [i.name for i in model.graph.input] == ["image"]
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in model.graph.output}
    assert shapes == {"mask": [1, 1, 64, 96], "plane": [1, 2]}
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert "Pad" not in kinds


def test_graph_tells_nothing_of_the_machine_that_made_it(exported: bytes) -> None:
    for word in (b"/site-packages/", b'File "', b".py"):
        assert word not in exported


def test_network_that_answers_no_number_does_not_pass(
    network: MultitaskUnet, exported: bytes, images: list[npt.NDArray[np.float32]]
) -> None:
    spoilt = copy.deepcopy(network)
    with torch.no_grad():
        spoilt.plane_head[3].bias.fill_(float("nan"))
    with pytest.raises(CheckFailedError, match="nan"):
        check_parity(spoilt, open_backend("onnxruntime", exported), images[:1])


def test_another_network_does_not_pass_for_it(exported: bytes, images: list[npt.NDArray[np.float32]]) -> None:
    torch.manual_seed(1)
    config = MultitaskUnetConfig(structures=("head",), planes=("head", "none"), features=(8, 8, 16, 16, 24, 8))
    with pytest.raises(CheckFailedError, match="differs from the network"):
        check_parity(MultitaskUnet(config).eval(), open_backend("onnxruntime", exported), images[:1])


@pytest.mark.parametrize(("profile", "kind"), [("cpu-x86", onnx.TensorProto.UINT8), ("cpu-arm", onnx.TensorProto.INT8)])
def test_recipe_is_that_of_the_target(
    exported: bytes, images: list[npt.NDArray[np.float32]], profile: str, kind: int
) -> None:
    seen: list[None] = []
    shipped = quantised_onnx(exported, read_profile(profile).int8, iter(images), lambda: seen.append(None))
    assert len(seen) == len(images)
    graph = onnx.load_from_string(shipped).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    activations = [n for n in graph.node if n.op_type == "QuantizeLinear"]
    assert activations
    assert {constants[n.input[2]].data_type for n in activations} == {kind}
    weights = [
        n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants and "weight" in n.input[0]
    ]
    convolutions = [n for n in weights if len(constants[n.input[0]].dims) == 4]
    assert len(convolutions) >= 19
    assert {constants[n.input[0]].data_type for n in convolutions} == {onnx.TensorProto.INT8}
    assert all(len(constants[n.input[1]].dims) == 1 for n in convolutions), "one scale for each output channel"
    levels = np.abs(np.concatenate([onnx.numpy_helper.to_array(constants[n.input[0]]).ravel() for n in convolutions]))
    assert int(levels.max()) == (64 if read_profile(profile).int8.seven_bit_weights else 127)
    groups = layer_groups(shipped, read_profile(profile).int8)
    assert groups[0].precision == "int8"
    assert "Conv" in groups[0].layers
    assert all("Conv" not in group.layers for group in groups[1:])


def test_ranges_come_from_the_images(exported: bytes, images: list[npt.NDArray[np.float32]]) -> None:
    """Ten times brighter frames must give ten times wider input steps."""
    recipe = read_profile("cpu-x86").int8

    def input_scale(factor: float) -> float:
        graph = onnx.load_from_string(quantised_onnx(exported, recipe, (i * np.float32(factor) for i in images))).graph
        name = next(n.input[1] for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "image")
        return float(onnx.numpy_helper.to_array(next(t for t in graph.initializer if t.name == name)))

    assert input_scale(10.0) == pytest.approx(10 * input_scale(1.0), rel=1e-3)


def test_int8_answers_nearly_as_float(exported: bytes, images: list[npt.NDArray[np.float32]]) -> None:
    shipped = open_backend("onnxruntime", quantised_onnx(exported, read_profile("cpu-x86").int8, iter(images)))
    reference = open_backend("onnxruntime", exported)
    for image in images[:4]:
        a, b = shipped.run(image)["mask"], reference.run(image)["mask"]
        assert np.abs(a - b).mean() < 0.1 * np.abs(b).std() + 0.02
