"""NVIDIA's cuda-python, as far as it goes without a GPU: which functions are called, with what, and what errors become.

A made-up runtime keeps its memory in this process; where the real one is installed every name is looked up in it.
"""
# ruff: noqa: N801, N802, N815 - NVIDIA's names

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgefetal_runtime.infer.tensorrt.cuda import CudaError
from edgefetal_runtime.infer.tensorrt.cuda_python import CudaPython, RuntimeSession

SHAPE = (1, 1, 2, 3)


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700


OK = cudaError_t.cudaSuccess


class Runtime:
    """Answers like `cuda.bindings.runtime`: a tuple that begins with an error."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")

    def __init__(self) -> None:
        self.fails: dict[str, cudaError_t] = {}
        self.called: list[tuple[Any, ...]] = []
        self.memory: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.called.append((name, *arguments))
            if name in self.fails:
                return (self.fails[name], None)
            return (OK, *getattr(self, f"do_{name}", lambda *_: ())(*arguments))

        return call

    def do_cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any]:
        assert flags == 1
        return (77,)

    def _allocate(self, size_bytes: int) -> tuple[int]:
        room = ctypes.create_string_buffer(size_bytes)
        self.memory[ctypes.addressof(room)] = room
        return (ctypes.addressof(room),)

    def do_cudaHostAlloc(self, size_bytes: int, flags: int) -> tuple[int]:
        assert flags == 0
        return self._allocate(size_bytes)

    def do_cudaMalloc(self, size_bytes: int) -> tuple[int]:
        return self._allocate(size_bytes)

    def do_cudaFreeHost(self, address: int) -> tuple[()]:
        del self.memory[address]
        return ()

    do_cudaFree = do_cudaFreeHost

    def do_cudaMemcpyAsync(self, to: int, of: int, size_bytes: int, kind: str, stream: int) -> tuple[()]:
        assert (kind in {"in", "out"}, stream) == (True, 77)
        assert len(self.memory[to]) == len(self.memory[of]) == size_bytes
        ctypes.memmove(to, of, size_bytes)
        return ()

    def do_cudaStreamEndCapture(self, stream: int) -> tuple[str]:
        assert stream == 77
        return ("graph",)

    def do_cudaGraphInstantiate(self, graph: str, flags: int) -> tuple[str]:
        assert (graph, flags) == ("graph", 0)
        return ("executable",)

    def do_cudaGetDeviceProperties(self, device: int) -> tuple[Any]:
        assert device == 0
        uuid = SimpleNamespace(bytes=bytes(range(16)))
        return (SimpleNamespace(name=b"Orin\0\0", major=8, minor=7, uuid=uuid),)

    def do_cudaMemGetInfo(self) -> tuple[int, int]:
        return (5, 8)

    def do_cudaDriverGetVersion(self) -> tuple[int]:
        return (12060,)

    def do_cudaRuntimeGetVersion(self) -> tuple[int]:
        return (12020,)


def names(runtime: Runtime) -> list[str]:
    return [call[0] for call in runtime.called]


def lived(runtime: Runtime) -> None:
    """Do everything that a session can."""
    session = CudaPython(runtime).open()
    assert (session.stream, session.no_graphs) == (77, None)
    session.facts()
    host, address = session.new_host(SHAPE), session.new_device(24)
    host[:] = np.arange(6, dtype=np.float32).reshape(SHAPE)
    session.copy_in(address, host)
    host[:] = 0
    session.copy_out(host, address)
    session.synchronise()
    np.testing.assert_array_equal(host.reshape(-1), np.arange(6))
    session.begin_capture()
    graph = session.end_capture()
    session.launch(graph)
    session.free_graph(graph)
    session.free_device(address)
    session.free_host(host)
    session.close()


def test_everything_is_made_copied_and_freed() -> None:
    runtime = Runtime()
    lived(runtime)
    assert runtime.memory == {}
    assert runtime.called[0] == ("cudaSetDevice", 0)
    assert runtime.called[-1] == ("cudaStreamDestroy", 77)
    for call in (
        ("cudaStreamBeginCapture", 77, "thread"),
        ("cudaGraphDestroy", "graph"),
        ("cudaGraphLaunch", "executable", 77),
        ("cudaGraphExecDestroy", "executable"),
    ):
        assert call in runtime.called
    # The context is the process's, and others may use it.
    assert "cudaDeviceReset" not in names(runtime)


def test_facts() -> None:
    facts = RuntimeSession(Runtime()).facts()
    assert (facts.name, facts.compute_capability) == ("Orin", (8, 7))
    assert facts.uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (facts.total_bytes, facts.free_bytes) == (8, 5)
    assert (facts.driver_cuda, facts.library_cuda, facts.library) == ("12.6", "12.2", "cuda-python")


def test_a_uuid_of_zeros_is_none() -> None:
    runtime = Runtime()
    properties = SimpleNamespace(name="Orin", major=8, minor=7, uuid=SimpleNamespace(bytes=bytes(16)))
    runtime.do_cudaGetDeviceProperties = lambda _: (properties,)  # type: ignore[method-assign]
    facts = RuntimeSession(runtime).facts()
    assert (facts.name, facts.uuid) == ("Orin", None)


def test_every_function_s_error_is_found_with_its_number_name_and_place() -> None:
    healthy = Runtime()
    lived(healthy)
    for name in set(names(healthy)):
        runtime = Runtime()
        runtime.fails[name] = cudaError_t.cudaErrorIllegalAddress
        with pytest.raises(CudaError, match=f"cudaErrorIllegalAddress, 700, from {name}") as caught:
            lived(runtime)
        assert caught.value.number == 700


def test_a_graph_that_cannot_be_made_ready_is_freed_all_the_same() -> None:
    runtime = Runtime()
    session = RuntimeSession(runtime)
    session.begin_capture()
    runtime.fails["cudaGraphInstantiate"] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(CudaError, match="cudaGraphInstantiate"):
        session.end_capture()
    assert runtime.called[-1] == ("cudaGraphDestroy", "graph")


def test_a_function_that_the_driver_does_not_have_is_an_error_as_well() -> None:
    runtime = Runtime()

    def missing(_: int) -> Any:
        raise RuntimeError("Function cudaSetDevice not found")

    runtime.do_cudaSetDevice = missing  # type: ignore[attr-defined]
    with pytest.raises(CudaError, match="not found"):
        RuntimeSession(runtime)


def test_every_name_is_one_of_nvidia_s() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    runtime = Runtime()
    lived(runtime)
    assert all(callable(getattr(real, name)) for name in names(runtime))
    for kind in ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"):
        assert hasattr(real.cudaMemcpyKind, kind)
    assert hasattr(real.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert (real.cudaStreamNonBlocking, real.cudaHostAllocDefault) == (1, 0)
    assert {"name", "major", "minor", "uuid"} <= set(dir(real.cudaDeviceProp))
    assert hasattr(real.cudaUUID_t, "bytes")
    assert hasattr(real.cudaError_t.cudaSuccess, "name")
