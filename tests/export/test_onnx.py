from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.onnx import OPSET, check_parity, onnx_from_network
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
