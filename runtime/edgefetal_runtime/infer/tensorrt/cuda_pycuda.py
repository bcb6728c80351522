"""The GPU through PyCUDA, without its `autoinit`.

The primary context is retained and pushed, because it is the one that TensorRT's own calls of the CUDA runtime use; one
made by `make_context` would be a second. PyCUDA's errors carry a sentence and no number, so the number is looked up by
asking the driver for its sentences. PyCUDA cannot capture graphs (its documentation of `Stream` has no such method).
"""

from __future__ import annotations

import ctypes
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from edgefetal_runtime.infer.tensorrt.cuda import CudaError, DeviceFacts, cuda_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    T = TypeVar("T")

NAME: Final = "pycuda"
_FIRST_GPU: Final = 0
# CU_STREAM_NON_BLOCKING of the driver's interface, for which PyCUDA has no name.
_WAITS_FOR_NO_OTHER: Final = 1
# Stands for a sentence that the driver does not have. Context destroyed: nothing more is tried.
_UNKNOWN: Final = (709, "an unknown CUDA error")
_NUMBERS: Final = range(1, 1000)


class PyCuda:
    """The library, imported."""

    name = NAME

    def __init__(self, driver: Any, numbers: Callable[[], Mapping[str, tuple[int, str]]]) -> None:  # noqa: ANN401 - untyped
        """Take the module `pycuda.driver`, and what gives an error's number and name by its sentence."""
        self._driver, self._numbers = driver, numbers

    def open(self) -> PyCudaSession:
        """Open the first GPU in this thread."""
        return PyCudaSession(self._driver, self._numbers)


def load() -> PyCuda:
    """Import it; the GPU is not touched.

    Raises:
        ImportError: it is not installed, or does not load, as where there is no driver.
    """
    return PyCuda(importlib.import_module("pycuda.driver"), error_numbers)


def error_numbers() -> dict[str, tuple[int, str]]:
    """Ask the driver for its errors: number and name by sentence; empty where it cannot be asked."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    found: dict[str, tuple[int, str]] = {}
    sentence, name = ctypes.c_char_p(), ctypes.c_char_p()
    for number in _NUMBERS:
        known = driver.cuGetErrorString(number, ctypes.byref(sentence)) == 0
        if known and driver.cuGetErrorName(number, ctypes.byref(name)) == 0:
            found.setdefault((sentence.value or b"").decode(), (number, (name.value or b"").decode()))
    return found


class PyCudaSession:
    """The first GPU's primary context, pushed in this thread until it is closed."""

    no_graphs: str | None = "PyCUDA cannot capture them; cuda-python can"

    def __init__(self, driver: Any, numbers: Callable[[], Mapping[str, tuple[int, str]]]) -> None:  # noqa: ANN401 - untyped
        """Retain the context, make it current, and make a stream that waits for no other."""
        self._driver, self._numbers = driver, numbers
        self._allocations: dict[int, Any] = {}
        self._do(driver.init)
        self._device = self._do(lambda: driver.Device(_FIRST_GPU))
        self._context = self._do(self._device.retain_primary_context)
        try:
            self._do(self._context.push)
            self._stream = self._do(lambda: driver.Stream(_WAITS_FOR_NO_OTHER))
        except CudaError:
            # Whichever of the two it was that failed.
            for step in (self._context.pop, self._context.detach):
                with suppress(CudaError):
                    self._do(step)
            raise

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def facts(self) -> DeviceFacts:
        """Ask the GPU what it is; PyCUDA does not give its UUID."""
        free_bytes, total_bytes = self._do(self._driver.mem_get_info)
        major, minor = self._do(self._device.compute_capability)
        return DeviceFacts(
            name=str(self._do(self._device.name)),
            compute_capability=(int(major), int(minor)),
            uuid=None,
            total_bytes=int(total_bytes),
            free_bytes=int(free_bytes),
            driver_cuda=cuda_version(self._do(self._driver.get_driver_version)),
            library_cuda=".".join(map(str, self._do(self._driver.get_version)[:2])),
            library=NAME,
        )

    def new_host(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Make a page-locked array."""
        array: npt.NDArray[np.float32] = self._do(lambda: self._driver.pagelocked_empty(shape, np.float32))
        return array

    def free_host(self, array: npt.NDArray[np.float32]) -> None:
        """Free what `new_host` made: its documentation says that the array's base can."""
        base: Any = array.base
        self._do(base.free)

    def new_device(self, size_bytes: int) -> int:
        """Make room on the GPU; return its address."""
        allocation = self._do(lambda: self._driver.mem_alloc(size_bytes))
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free_device(self, address: int) -> None:
        """Free what `new_device` made."""
        self._do(self._allocations.pop(address).free)

    def copy_in(self, address: int, array: npt.NDArray[np.float32]) -> None:
        """Queue a copy of a whole page-locked array to the GPU."""
        self._do(lambda: self._driver.memcpy_htod_async(address, array, self._stream))

    def copy_out(self, array: npt.NDArray[np.float32], address: int) -> None:
        """Queue a copy from the GPU that fills a whole page-locked array."""
        self._do(lambda: self._driver.memcpy_dtoh_async(array, address, self._stream))

    def synchronise(self) -> None:
        """Wait for all that was queued."""
        self._do(self._stream.synchronize)

    def begin_capture(self) -> None:
        """Refuse."""
        raise CudaError(801, self.no_graphs or "", "begin_capture")

    def end_capture(self) -> object:
        """Refuse."""
        raise CudaError(801, self.no_graphs or "", "end_capture")

    def launch(self, graph: object) -> None:
        """Refuse."""
        raise CudaError(801, self.no_graphs or "", f"launch of {graph!r}")

    def free_graph(self, graph: object) -> None:
        """Refuse."""
        raise CudaError(801, self.no_graphs or "", f"free of {graph!r}")

    def close(self) -> None:
        """Give the stream and the context back."""
        # PyCUDA destroys a stream with its object, for which the context must still be current.
        self._stream = None
        # It ends the program if it finds a context on its stack when the thread ends.
        self._do(self._context.pop)
        self._do(self._context.detach)

    def _do(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except self._driver.Error as error:
            call, _, rest = str(error).partition(" failed: ")
            # Behind the driver's sentence PyCUDA sometimes says more.
            number, name = self._numbers().get(rest.partition(" - ")[0], _UNKNOWN)
            raise CudaError(number, f"{name}: {rest}", call) from error
