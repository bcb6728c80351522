"""The real TensorRT-RTX, without a GPU: every name that the engine uses is there, so the made-up one cannot drift."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fake_cuda import FakeCuda, Gpu, fake_tensorrt

import edgefetal_runtime.infer.tensorrt.engine as engine_module
from edgefetal_devices.errors import BundleError
from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.tensorrt.engine import open_plan
from edgefetal_runtime.infer.tensorrt.log import make_logger

if TYPE_CHECKING:
    from types import ModuleType

BY_OBJECT = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_shape",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_format",
        "get_tensor_location",
        "create_execution_context",
        "create_engine_inspector",
    ),
    "IExecutionContext": ("set_tensor_address", "execute_async_v3", "is_stream_capturable"),
    "EngineInspector": ("get_engine_information",),
    "LayerInformationFormat": ("JSON",),
    "ILogger": ("log", "Severity"),
    "DataType": ("FLOAT",),
    "TensorFormat": ("LINEAR",),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "TensorLocation": ("DEVICE",),
}


@pytest.fixture(scope="module")
def real() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed; pip install -e .[test]")


def test_the_list_holds_all_that_the_engine_uses() -> None:
    source = inspect.getsource(engine_module)
    used = set(re.findall(r"self\._(?:runtime|engine|context)\.(\w+)", source))
    used |= set(re.findall(r'getattr\(self\._context, "(\w+)"', source))
    assert used == {name for kind in ("Runtime", "ICudaEngine", "IExecutionContext") for name in BY_OBJECT[kind]}
    assert set(re.findall(r"\btrt\.(\w+)|module\.(\w+)\(", source)) == {
        ("DataType", ""),
        ("TensorFormat", ""),
        ("TensorLocation", ""),
        ("TensorIOMode", ""),
        ("", "Runtime"),
    }
    assert "module.LayerInformationFormat.JSON" in source


@pytest.mark.parametrize("kind", BY_OBJECT)
def test_every_name_is_in_the_real_one(real: ModuleType, kind: str) -> None:
    assert [name for name in BY_OBJECT[kind] if not hasattr(getattr(real, kind), name)] == []


def test_severities_get_worse_downwards_there_too(real: ModuleType) -> None:
    of = real.ILogger.Severity
    assert [int(level) for level in (of.INTERNAL_ERROR, of.ERROR, of.WARNING, of.INFO)] == [0, 1, 2, 3]


def test_a_shape_is_read_as_numbers(real: ModuleType) -> None:
    assert tuple(int(length) for length in real.Dims((1, 1, -1, 384))) == (1, 1, -1, 384)


def test_the_real_one_takes_the_logger_and_complains_to_it(real: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    tensorrt = TensorRT(real, "tensorrt_rtx", real.__version__)
    logger = make_logger(tensorrt)
    builder: Any = real.Builder(logger)
    network = builder.create_network(1 << int(real.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    logger.errors.clear()
    assert not real.OnnxParser(network, logger).parse(b"no graph at all")
    assert logger.errors != []
    assert capfd.readouterr() == ("", "")


def test_the_real_one_refuses_a_plan_in_its_own_words(real: ModuleType) -> None:
    """The GPU is made up, and the plan is none: what it says of that becomes our message, and nothing crashes."""
    gpu = Gpu()
    with pytest.raises(BundleError, match=r"TensorRT [\d.]+ does not accept the engine \(.*magicTag.*finish BUNDLE"):
        open_plan(b"garbage" * 100, TensorRT(real, "tensorrt_rtx", real.__version__), FakeCuda(gpu), use_graph=False)
    assert gpu.clean(), gpu.violations
    # The made-up TensorRT has the same way of refusing.
    with pytest.raises(BundleError, match="does not accept the engine"):
        open_plan(b"garbage" * 100, fake_tensorrt(gpu), FakeCuda(gpu), use_graph=False)


NO_DRIVER = """
import tensorrt_rtx_bindings as trt
from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.tensorrt.log import make_logger
logger = make_logger(TensorRT(trt, "tensorrt_rtx", trt.__version__))
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
image = network.add_input("image", trt.DataType.FLOAT, (1, 1, 4, 6))
layer = network.add_activation(image, trt.ActivationType.RELU)
layer.get_output(0).name = "mask"
network.mark_output(layer.get_output(0))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM86, 0)
plan = bytes(builder.build_serialized_network(network, config))
runtime = trt.Runtime(logger)
logger.errors.clear()
engine = runtime.deserialize_cuda_engine(plan)
print(engine is None and any("driver" in error.lower() for error in logger.errors))
"""


@pytest.mark.usefixtures("real")
def test_a_whole_plan_without_a_driver_is_refused_and_crashes_nothing() -> None:
    from edgefetal_runtime.infer.tensorrt.cuda_pycuda import error_numbers

    if error_numbers():
        pytest.skip("there is a driver here")
    ended = subprocess.run([sys.executable, "-c", NO_DRIVER], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
