"""A GPU that exists in memory alone, with a CUDA library and a TensorRT for it: strict, and able to fail at any step.

Work is done when it is waited for and not before, as on a GPU that is slow. What breaks a rule is written into
`violations`: another thread, memory that is not there, work after a loss, things freed in the wrong order.
"""

from __future__ import annotations

import enum
import functools
import json
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.tensorrt.cuda import STICKY, CudaError, DeviceFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

STREAM = 77
FACTS = DeviceFacts("Made-up GPU", (8, 7), None, 8 << 30, 6 << 30, "12.6", "12.6", "fake")


@dataclass
class Gpu:
    """The GPU, what runs on it, and how it fails.

    Args:
        fail_at: number of the step, from 0, that fails; None for none.
        number: CUDA's number of the failure.
        graphs: whether graphs can be made.
        short_bytes: so many bytes at the end are left out when something is copied back.
        graph_forgets: the graph launches nothing, as one that captured nothing would.
    """

    fail_at: int | None = None
    number: int = 2
    graphs: bool = True
    short_bytes: int = 0
    graph_forgets: bool = False
    steps: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    memory: dict[int, bytearray] = field(default_factory=dict)
    pinned: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    queue: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    live_graphs: list[list[Callable[[], None]]] = field(default_factory=list)
    live_tensorrt: list[str] = field(default_factory=list)
    sessions: int = 0
    owner: int | None = None
    broken: bool = False
    reported: bool = False

    def step(self, name: str) -> bool:
        """Take a step that must be one of the owner's; return whether it is the one that fails."""
        self.steps.append(name)
        if self.reported:
            self.violations.append(f"{name} after the GPU was lost")
        if threading.get_ident() != self.owner:
            self.violations.append(f"{name} in another thread")
        return len(self.steps) - 1 == self.fail_at

    def cuda(self, name: str) -> None:
        """Take one of CUDA's steps."""
        if self.step(name) or self.broken:
            self.broken = self.reported = self.number in STICKY
            raise CudaError(self.number, "cudaErrorMadeUp", name)

    def tensorrt(self, name: str) -> bool:
        """Take one of TensorRT's steps; return whether it fails, which may be because the GPU was lost."""
        fails = self.step(name)
        self.broken = self.broken or (fails and self.number in STICKY)
        return fails

    def put(self, work: Callable[[], None]) -> None:
        """Queue work, or take it down."""
        (self.queue if self.captured is None else self.captured).append(work)

    def room(self, address: int, size_bytes: int, what: str) -> bytearray:
        """Return memory that must be there, and of that size."""
        found = self.memory.get(address)
        if found is None or len(found) != size_bytes:
            self.violations.append(f"{what} of {size_bytes} bytes at {address:#x}, where there are none such")
            return bytearray(size_bytes)
        return found

    def clean(self) -> bool:
        """Return whether nothing is left."""
        left = (self.memory, self.pinned, self.live_graphs, self.live_tensorrt)
        return self.sessions == 0 and not any(left) and not self.violations


@dataclass
class FakeCuda:
    """A CUDA library for it."""

    gpu: Gpu
    name: str = "fake"

    def open(self) -> FakeSession:
        self.gpu.owner = threading.get_ident()
        self.gpu.cuda("open")
        self.gpu.sessions += 1
        return FakeSession(self.gpu)


class FakeSession:
    """The GPU, opened."""

    stream = STREAM

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.no_graphs = None if gpu.graphs else "the made-up library cannot"

    def facts(self) -> DeviceFacts:
        self._gpu.cuda("facts")
        return FACTS

    def new_host(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        self._gpu.cuda("new_host")
        array = np.full(shape, 1e30, np.float32)
        self._gpu.pinned[id(array)] = array
        return array

    def free_host(self, array: npt.NDArray[np.float32]) -> None:
        freed = self._gpu.pinned.pop(id(array), None)
        if freed is None:
            self._gpu.violations.append("freed a host array twice")
        self._require_idle("free_host")
        array.fill(-1e30)
        self._gpu.cuda("free_host")

    def new_device(self, size_bytes: int) -> int:
        self._gpu.cuda("new_device")
        address = 0x1000 * (len(self._gpu.steps) + 1)
        self._gpu.memory[address] = bytearray(b"\xab" * size_bytes)
        return address

    def free_device(self, address: int) -> None:
        if self._gpu.memory.pop(address, None) is None:
            self._gpu.violations.append("freed memory twice")
        self._require_idle("free_device")
        self._gpu.cuda("free_device")

    def copy_in(self, address: int, array: npt.NDArray[np.float32]) -> None:
        self._gpu.cuda("copy_in")
        self._require_pinned(array)
        self._gpu.room(address, array.nbytes, "copy in")

        def work() -> None:
            self._gpu.room(address, array.nbytes, "copy in")[:] = array.tobytes()

        self._gpu.put(work)

    def copy_out(self, array: npt.NDArray[np.float32], address: int) -> None:
        self._gpu.cuda("copy_out")
        self._require_pinned(array)
        self._gpu.room(address, array.nbytes, "copy out")

        def work() -> None:
            count = array.nbytes - self._gpu.short_bytes
            content = self._gpu.room(address, array.nbytes, "copy out")[:count]
            array.reshape(-1).view(np.uint8)[:count] = np.frombuffer(bytes(content), np.uint8)

        self._gpu.put(work)

    def synchronise(self) -> None:
        if self._gpu.captured is not None:
            self._gpu.violations.append("waited while capturing")
        self._gpu.cuda("synchronise")
        queue, self._gpu.queue[:] = list(self._gpu.queue), []
        for work in queue:
            work()

    def begin_capture(self) -> None:
        self._gpu.cuda("begin_capture")
        if self._gpu.queue:
            self._gpu.violations.append("captured while work was queued")
        self._gpu.captured = []

    def end_capture(self) -> object:
        graph, self._gpu.captured = self._gpu.captured, None
        self._gpu.cuda("end_capture")
        assert graph is not None
        self._gpu.live_graphs.append(graph)
        return graph

    def launch(self, graph: object) -> None:
        self._gpu.cuda("launch")
        if not any(graph is live for live in self._gpu.live_graphs):
            self._gpu.violations.append("launched a graph that is not there")
        if not self._gpu.graph_forgets:
            self._gpu.queue.extend(graph)  # type: ignore[call-overload]

    def free_graph(self, graph: object) -> None:
        self._gpu.live_graphs[:] = [live for live in self._gpu.live_graphs if live is not graph]
        self._gpu.cuda("free_graph")

    def close(self) -> None:
        if self._gpu.memory or self._gpu.pinned or self._gpu.live_graphs:
            self._gpu.violations.append("gave the GPU back while something was on it")
        self._gpu.sessions -= 1
        self._gpu.cuda("close")

    def _require_pinned(self, array: npt.NDArray[np.float32]) -> None:
        if id(array) not in self._gpu.pinned:
            self._gpu.violations.append("copied memory that is not page-locked")

    def _require_idle(self, what: str) -> None:
        if self._gpu.queue:
            self._gpu.violations.append(f"{what} while work was queued")


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW4 = 3


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class LayerInformationFormat(enum.Enum):
    ONELINE = 0
    JSON = 1


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    def log(self, severity: Severity, message: str) -> None:
        raise AssertionError(f"TensorRT calls what its users write, and not this with {severity.name}: {message}")


def plan_of(height: int = 4, width: int = 6, **changes: dict[str, Any]) -> bytes:
    """Write an engine that has an input and the outputs `mask` and `plane`; `changes` replace fields of a tensor."""
    plain = {"mode": "OUTPUT", "dtype": "FLOAT", "format": "LINEAR", "location": "DEVICE"}
    tensors = {
        "plane": {**plain, "shape": [1, 2]},
        "image": {**plain, "mode": "INPUT", "shape": [1, 1, height, width]},
        "mask": {**plain, "shape": [1, 3, height, width]},
    }
    for name, change in changes.items():
        tensors[name] = {**tensors.get(name, plain), **change}
    return json.dumps({name: tensor for name, tensor in tensors.items() if tensor["shape"] is not None}).encode()


def answers_to(image: npt.NDArray[np.float32], plan: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Say what that engine answers: every number of an output depends on its place and on the image."""
    tensors = json.loads(plan)
    values = image.reshape(-1)
    answers = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        if tensor["mode"] == "OUTPUT":
            size = int(np.prod(tensor["shape"]))
            scaled = np.resize(values, size) * np.float32(number + 2) + np.arange(size, dtype=np.float32)
            answers[name] = scaled.reshape(tensor["shape"]).astype(np.float32)
    return answers


class _Alive:
    """What TensorRT made; it is freed with its object, and must be freed in order and in the owner's thread."""

    kind = ""
    after: tuple[str, ...] = ()

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        gpu.live_tensorrt.append(self.kind)

    def __del__(self) -> None:
        gpu = getattr(self, "gpu", None)
        # It was never made.
        if gpu is None:
            return
        gpu.live_tensorrt.remove(self.kind)
        if gpu.broken or gpu.reported:
            gpu.violations.append(f"freed the {self.kind} after the GPU was lost")
        if threading.get_ident() != gpu.owner:
            gpu.violations.append(f"freed the {self.kind} in another thread")
        if gpu.sessions == 0:
            gpu.violations.append(f"freed the {self.kind} after the GPU was given back")
        for other in self.after:
            if other in gpu.live_tensorrt:
                gpu.violations.append(f"freed the {self.kind} before the {other}")
        if gpu.live_graphs:
            gpu.violations.append(f"freed the {self.kind} before its graph")
        if gpu.queue:
            gpu.violations.append(f"freed the {self.kind} while it had work")


class _Context(_Alive):
    kind = "context"

    def __init__(self, gpu: Gpu, plan: bytes) -> None:
        super().__init__(gpu)
        self._plan, self._addresses, self._runs = plan, {}, 0
        self._tensors = json.loads(plan)

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream == STREAM
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.gpu.room(address, self._bytes(name), f"address of {name}")
        self._addresses[name] = address
        return not self.gpu.tensorrt("set_tensor_address")

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert self._addresses.keys() == self._tensors.keys()
        if self.gpu.captured is not None and self._runs == 0:
            self.gpu.violations.append("captured the first run, which allocates")
        self._runs += 1
        if self.gpu.tensorrt("execute"):
            return False
        # A graph is no object of the context's, and does not keep it.
        self.gpu.put(functools.partial(_work, self.gpu, self._plan, dict(self._addresses)))
        return True

    def _bytes(self, name: str) -> int:
        return 4 * int(np.prod(self._tensors[name]["shape"]))


def _work(gpu: Gpu, plan: bytes, addresses: dict[str, int]) -> None:
    tensors = json.loads(plan)
    name = next(name for name, tensor in tensors.items() if tensor["mode"] == "INPUT")
    shape = tensors[name]["shape"]
    image = np.frombuffer(bytes(gpu.room(addresses[name], 4 * int(np.prod(shape)), "run")), np.float32).reshape(shape)
    for output, value in answers_to(image, plan).items():
        gpu.room(addresses[output], value.nbytes, "run")[:] = value.tobytes()


class _Inspector:
    """Tells of one layer."""

    def get_engine_information(self, kind: LayerInformationFormat) -> str:
        assert kind is LayerInformationFormat.JSON
        return '{"Layers": ["only"]}'


class _Engine(_Alive):
    kind = "engine"
    after = ("context",)

    def __init__(self, gpu: Gpu, plan: bytes) -> None:
        super().__init__(gpu)
        self._plan, self._tensors = plan, json.loads(plan)
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, number: int) -> str:
        return list(self._tensors)[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name]["shape"])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self._tensors[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensors[name]["dtype"]]

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat[self._tensors[name]["format"]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation[self._tensors[name]["location"]]

    def create_engine_inspector(self) -> _Inspector:
        assert not self.gpu.tensorrt("create_engine_inspector")
        return _Inspector()

    def create_execution_context(self) -> _Context | None:
        return None if self.gpu.tensorrt("create_execution_context") else _Context(self.gpu, self._plan)


def fake_tensorrt(gpu: Gpu) -> TensorRT:
    """Make a TensorRT that runs on a made-up GPU."""
    module = ModuleType("tensorrt")

    class Runtime(_Alive):
        kind = "runtime"
        after = ("context", "engine")

        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            self._logger = logger
            if gpu.tensorrt("Runtime"):
                raise TypeError("pybind11::init(): factory function returned nullptr")
            super().__init__(gpu)

        def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
            if gpu.tensorrt("deserialize") or not plan.startswith(b"{"):
                self._logger.log(ILogger.Severity.WARNING, "a warning")
                self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed.")
                return None
            return _Engine(gpu, plan)

    for thing in (DataType, LayerInformationFormat, TensorFormat, TensorIOMode, TensorLocation, ILogger, Runtime):
        setattr(module, thing.__name__, thing)
    return TensorRT(module, "tensorrt", "10.3.0")
