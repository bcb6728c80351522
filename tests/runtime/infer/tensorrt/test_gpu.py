"""On a real GPU: a graph built with whatever TensorRT is there, run through each CUDA library, beside onnxruntime."""

from __future__ import annotations

import ctypes
import io
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import GOLDEN, REFERENCE
from edgefetal_runtime.infer.golden import MAX_MASK_DISAGREEMENT, MAX_PLANE_DIFFERENCE
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.infer.tensorrt.api import TensorRT, load_tensorrt
from edgefetal_runtime.infer.tensorrt.cuda import TABLE, Cuda, load_cuda
from edgefetal_runtime.infer.tensorrt.engine import open_plan, read_facts
from edgefetal_runtime.infer.tensorrt.log import make_logger, said

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def tensorrt() -> TensorRT:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        pytest.skip(f"no NVIDIA driver ({error})")
    try:
        return load_tensorrt()
    except EnvironmentLacksError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[entry.name for entry in TABLE])
def cuda(request: pytest.FixtureRequest, tensorrt: TensorRT) -> Cuda:
    assert tensorrt
    try:
        library = load_cuda(request.param)
        read_facts(library)
    except EnvironmentLacksError as error:
        pytest.skip(str(error))
    return library


@pytest.fixture(scope="module")
def plan(tensorrt: TensorRT, intact_bundle: Bundle) -> bytes:
    """The starter's float graph, built for this GPU with nothing but defaults."""
    trt, logger = tensorrt.module, make_logger(tensorrt)
    builder: Any = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(intact_bundle.read(REFERENCE)), said(logger)
    built = builder.build_serialized_network(network, builder.create_builder_config())
    assert built is not None, said(logger)
    return bytes(built)


@pytest.mark.parametrize("use_graph", [True, False])
def test_an_engine_answers_as_onnxruntime_does(
    tensorrt: TensorRT,
    cuda: Cuda,
    plan: bytes,
    intact_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    *,
    use_graph: bool,
) -> None:
    plain = open_backend("onnxruntime", intact_bundle.read(REFERENCE))
    with np.load(io.BytesIO(intact_bundle.read(GOLDEN)), allow_pickle=False) as golden:
        frames = [golden[f"frame_{number}"] for number in range(int(golden["count"]))]
    images = [preprocess(frame, intact_bundle.manifest.preprocess)[0] for frame in frames]
    with open_plan(plan, tensorrt, cuda, use_graph=use_graph) as graph:
        for image in images:
            answers = graph.run(image)
            expected = plain.run(image)
            assert ((answers["mask"] > 0) != (expected["mask"] > 0)).mean() <= MAX_MASK_DISAGREEMENT
            assert np.abs(answers["plane"] - expected["plane"]).max() <= MAX_PLANE_DIFFERENCE
        seconds = []
        for _ in range(550):
            started_s = time.perf_counter()
            graph.run(images[0])
            seconds.append(time.perf_counter() - started_s)
        p50, p95, p99 = 1e3 * np.percentile(seconds[50:], (50, 95, 99))
        with capsys.disabled():
            print(  # noqa: T201 - the measurement is for whoever has the GPU
                f"\n{graph.facts.name}, {tensorrt.name} {tensorrt.version}, {cuda.name}, "
                f"{'CUDA graph' if graph.no_graph is None else graph.no_graph}: with copies p50 {p50:.3f}, "
                f"p95 {p95:.3f}, p99 {p99:.3f} ms"
            )


def test_opening_and_closing_leaves_the_gpu_s_memory_as_it_was(tensorrt: TensorRT, cuda: Cuda, plan: bytes) -> None:
    for _ in range(3):
        open_plan(plan, tensorrt, cuda, use_graph=True).close()
    before = read_facts(cuda).free_bytes
    for _ in range(20):
        open_plan(plan, tensorrt, cuda, use_graph=True).close()
    assert before - read_facts(cuda).free_bytes < 50_000_000
