"""The GPU through NVIDIA's cuda-python, whose functions answer with an error and what they return."""

from __future__ import annotations

import ctypes
import importlib
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_runtime.infer.tensorrt.cuda import CudaError, DeviceFacts, cuda_version

if TYPE_CHECKING:
    import numpy.typing as npt

NAME: Final = "cuda-python"
# Since 12.8 and before.
MODULES: Final = ("cuda.bindings.runtime", "cuda.cudart")
_FIRST_GPU: Final = 0


class CudaPython:
    """The library, imported."""

    name = NAME

    def __init__(self, runtime: Any) -> None:  # noqa: ANN401 - its types differ between versions
        """Take the module of the runtime's functions."""
        self._runtime = runtime

    def open(self) -> RuntimeSession:
        """Open the first GPU in this thread."""
        return RuntimeSession(self._runtime)


def load() -> CudaPython:
    """Import it.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    try:
        return CudaPython(importlib.import_module(MODULES[0]))
    except ModuleNotFoundError:
        return CudaPython(importlib.import_module(MODULES[1]))


class RuntimeSession:
    """The first GPU's primary context, which is the one that TensorRT's own calls of the runtime use."""

    no_graphs: str | None = None

    def __init__(self, runtime: Any) -> None:  # noqa: ANN401 - likewise
        """Make it current in this thread, and a stream that waits for no other."""
        self._runtime = runtime
        self._addresses: dict[int, int] = {}
        self._do("cudaSetDevice", _FIRST_GPU)
        self._stream = self._do("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    def facts(self) -> DeviceFacts:
        """Ask the GPU what it is."""
        of = self._do("cudaGetDeviceProperties", _FIRST_GPU)
        free_bytes, total_bytes = self._do("cudaMemGetInfo")
        name = of.name
        return DeviceFacts(
            name=(name.decode(errors="replace") if isinstance(name, bytes) else str(name)).strip("\0"),
            compute_capability=(int(of.major), int(of.minor)),
            uuid=_uuid(bytes(of.uuid.bytes)),
            total_bytes=int(total_bytes),
            free_bytes=int(free_bytes),
            driver_cuda=cuda_version(self._do("cudaDriverGetVersion")),
            library_cuda=cuda_version(self._do("cudaRuntimeGetVersion")),
            library=NAME,
        )

    def new_host(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Make a page-locked array."""
        count = math.prod(shape)
        address = int(self._do("cudaHostAlloc", count * 4, self._runtime.cudaHostAllocDefault))
        array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
        self._addresses[id(array)] = address
        return array

    def free_host(self, array: npt.NDArray[np.float32]) -> None:
        """Free what `new_host` made."""
        self._do("cudaFreeHost", self._addresses.pop(id(array)))

    def new_device(self, size_bytes: int) -> int:
        """Make room on the GPU; return its address."""
        return int(self._do("cudaMalloc", size_bytes))

    def free_device(self, address: int) -> None:
        """Free what `new_device` made."""
        self._do("cudaFree", address)

    def copy_in(self, address: int, array: npt.NDArray[np.float32]) -> None:
        """Queue a copy of a whole page-locked array to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def copy_out(self, array: npt.NDArray[np.float32], address: int) -> None:
        """Queue a copy from the GPU that fills a whole page-locked array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronise(self) -> None:
        """Wait for all that was queued."""
        self._do("cudaStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """Take down what is queued from here on, instead of doing it."""
        # What other threads of this process do on the GPU does not spoil it.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do("cudaStreamBeginCapture", self._stream, mode)

    def end_capture(self) -> object:
        """Return what was taken down, ready to be queued as one."""
        graph = self._do("cudaStreamEndCapture", self._stream)
        try:
            return self._do("cudaGraphInstantiate", graph, 0)
        finally:
            self._do("cudaGraphDestroy", graph)

    def launch(self, graph: object) -> None:
        """Queue what was taken down."""
        self._do("cudaGraphLaunch", graph, self._stream)

    def free_graph(self, graph: object) -> None:
        """Free what `end_capture` returned."""
        self._do("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Give the stream back; the primary context ends with the process, for others may use it."""
        self._do("cudaStreamDestroy", self._stream)

    def _do(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - what each function returns
        """Call a function; return what it returns behind the error: nothing, one value, or a tuple."""
        try:
            error, *values = getattr(self._runtime, name)(*arguments)
        # A function that the installed driver or runtime does not have.
        except RuntimeError as missing:
            raise CudaError(0, str(missing), name) from missing
        if int(error):
            raise CudaError(int(error), error.name, name)
        return values[0] if len(values) == 1 else tuple(values)


def _uuid(content: bytes) -> str | None:
    """Write a UUID as `nvidia-smi` does; one of nothing but zeros is none."""
    digits = content.hex()
    if not digits.strip("0"):
        return None
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "GPU-" + "-".join(parts)
