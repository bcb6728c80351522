"""Memory and work on the GPU: one small interface, two libraries that can give it, and the discipline round both.

    Session     what a library must be able to do; it raises `CudaError` and keeps no rules
    Device      a session with the rules: one thread, sizes that fit, everything freed, nothing touched after a loss

A library is chosen from one table, and imported when it is asked for.
"""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from edgefetal_devices.errors import DeviceLostError, EdgeFetalError, EnvironmentLacksError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")

# After these the process "must be terminated and relaunched", says the CUDA Runtime API of cudaError_t 13.5.
RELAUNCH: Final = frozenset({226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})
# Of these it does not say so; but the driver is unloaded, memory was corrupted, or the context is gone.
STICKY: Final = RELAUNCH | {4, 214, 220, 709}
_OUT_OF_MEMORY: Final = 2


class CudaError(Exception):
    """What CUDA answered to a call; `Device` makes one of our errors of it.

    Args:
        number: of the answer, the same in the driver's and the runtime's interface.
        name: of the answer.
        call: which answered it.
    """

    def __init__(self, number: int, name: str, call: str) -> None:
        """Keep the three."""
        super().__init__(f"{name}, {number}, from {call}")
        self.number, self.name, self.call = number, name, call


@dataclass(frozen=True)
class DeviceFacts:
    """What a GPU says of itself.

    Args:
        name: its maker's name for it.
        compute_capability: as (8, 7).
        uuid: as `GPU-` and 32 digits in groups, or None where the library or the GPU gives none.
        total_bytes: its memory; on a board that shares memory with its processor, all of it.
        free_bytes: of that, free now.
        driver_cuda: the newest CUDA that the driver can do, as `12.6`.
        library_cuda: the CUDA that the library was made with.
        library: which library says so.
    """

    name: str
    compute_capability: tuple[int, int]
    uuid: str | None
    total_bytes: int
    free_bytes: int
    driver_cuda: str
    library_cuda: str
    library: str


def cuda_version(number: int) -> str:
    """Write a version as people do: 12060 is `12.6`."""
    return f"{number // 1000}.{number % 1000 // 10}"


class Session(Protocol):
    """The first GPU, opened in this thread, with one stream; every call may raise `CudaError`."""

    @property
    def stream(self) -> int:
        """Return the stream's handle, as TensorRT takes it."""

    @property
    def no_graphs(self) -> str | None:
        """Say why CUDA graphs cannot be made, or None where they can."""

    def facts(self) -> DeviceFacts:
        """Ask the GPU what it is."""

    def new_host(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Make a page-locked array."""

    def free_host(self, array: npt.NDArray[np.float32]) -> None:
        """Free what `new_host` made."""

    def new_device(self, size_bytes: int) -> int:
        """Make room on the GPU; return its address."""

    def free_device(self, address: int) -> None:
        """Free what `new_device` made."""

    def copy_in(self, address: int, array: npt.NDArray[np.float32]) -> None:
        """Queue a copy of a whole page-locked array to the GPU."""

    def copy_out(self, array: npt.NDArray[np.float32], address: int) -> None:
        """Queue a copy from the GPU that fills a whole page-locked array."""

    def synchronise(self) -> None:
        """Wait for all that was queued."""

    def begin_capture(self) -> None:
        """Take down what is queued from here on, instead of doing it."""

    def end_capture(self) -> object:
        """Return what was taken down, ready to be queued as one."""

    def launch(self, graph: object) -> None:
        """Queue what was taken down."""

    def free_graph(self, graph: object) -> None:
        """Free what `end_capture` returned."""

    def close(self) -> None:
        """Give the stream and the GPU back."""


class Cuda(Protocol):
    """A library that can open the GPU."""

    @property
    def name(self) -> str:
        """Return its name in the table."""

    def open(self) -> Session:
        """Open the first GPU in this thread.

        Raises:
            CudaError: there is none, or it cannot be had.
        """


@dataclass(frozen=True)
class CudaEntry:
    """One row of the table.

    Args:
        name: of the library.
        module: ours that offers `load() -> Cuda`, which imports the library.
    """

    name: str
    module: str


# In the order in which they are tried.
TABLE: Final = (
    CudaEntry("pycuda", "edgefetal_runtime.infer.tensorrt.cuda_pycuda"),
    CudaEntry("cuda-python", "edgefetal_runtime.infer.tensorrt.cuda_python"),
)


def load_cuda(name: str | None = None) -> Cuda:
    """Import the first library of the table that loads here; the GPU is not touched.

    Args:
        name: which one, or None for any.

    Raises:
        EnvironmentLacksError: none loads; says of each why.
        InputError: the table has no such name.
    """
    entries = [entry for entry in TABLE if name in {None, entry.name}]
    if not entries:
        message = f"There is no CUDA library {name!r}; choose one of {', '.join(entry.name for entry in TABLE)}."
        raise InputError(message)
    reasons = []
    for entry in entries:
        try:
            return cast("Callable[[], Cuda]", importlib.import_module(entry.module).load)()
        # The driver's library, which is missing where there is no driver, raises either.
        except (ImportError, OSError) as error:  # noqa: PERF203 - the table has a handful of rows
            reasons.append(f"{entry.name}: {error}")
    message = (
        f"Nothing can reach the GPU's memory here ({'; '.join(reasons)}); install NVIDIA's driver, and one of the two: "
        "pip install pycuda, or pip install cuda-python."
    )
    raise EnvironmentLacksError(message)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Room for one array on both sides.

    Args:
        host: page-locked; do not hand it out, for it is freed with the device.
        address: on the GPU, of as many bytes.
    """

    host: npt.NDArray[np.float32]
    address: int


class Device:
    """The first GPU, owned by the thread that opened it; close it there too.

    Every method raises DeviceLostError once the GPU was lost, and then touches nothing any more, nor does `close`.
    It raises EnvironmentLacksError for what else CUDA does not do.
    """

    def __init__(self, cuda: Cuda) -> None:
        """Open it.

        Raises:
            EnvironmentLacksError: there is none, or it cannot be had.
            DeviceLostError: it was lost to this process before.
        """
        self._thread = threading.get_ident()
        self._closed = False
        self._lost: str | None = None
        self._buffers: list[Buffer] = []
        self._hosts: list[npt.NDArray[np.float32]] = []
        self._addresses: list[int] = []
        self._graphs: list[object] = []
        self._session = self._do(cuda.open)

    @property
    def lost(self) -> bool:
        """Whether the GPU is lost to this process."""
        return self._lost is not None

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._session.stream

    @property
    def no_graphs(self) -> str | None:
        """Why CUDA graphs cannot be made, or None where they can."""
        return self._session.no_graphs

    def facts(self) -> DeviceFacts:
        """Ask the GPU what it is."""
        return self._do(self._session.facts)

    def new_buffer(self, shape: tuple[int, ...]) -> Buffer:
        """Make room for an array of float32 on both sides."""
        host = self._do(lambda: self._session.new_host(shape))
        self._hosts.append(host)
        address = self._do(lambda: self._session.new_device(host.nbytes))
        self._addresses.append(address)
        buffer = Buffer(host, address)
        self._buffers.append(buffer)
        return buffer

    def copy_in(self, buffer: Buffer) -> None:
        """Queue a copy to the GPU."""
        self._require_ours(buffer)
        self._do(lambda: self._session.copy_in(buffer.address, buffer.host))

    def copy_out(self, buffer: Buffer) -> None:
        """Queue a copy from the GPU; look at it after `synchronise`."""
        self._require_ours(buffer)
        self._do(lambda: self._session.copy_out(buffer.host, buffer.address))

    def synchronise(self) -> None:
        """Wait for all that was queued; what went wrong in it is raised here."""
        self._do(self._session.synchronise)

    def capture(self, queue: Callable[[], None]) -> object:
        """Take down as a graph what a function queues; none of it is done.

        Args:
            queue: queues with this device's methods, or on its stream.
        """
        if self._session.no_graphs is not None:
            raise EnvironmentLacksError(f"CUDA graphs cannot be made here: {self._session.no_graphs}; do without.")
        self._do(self._session.begin_capture)
        try:
            queue()
        except BaseException:
            # A stream that is left capturing can do nothing else.
            with suppress(EdgeFetalError):
                self._graphs.append(self._do(self._session.end_capture))
            raise
        graph = self._do(self._session.end_capture)
        self._graphs.append(graph)
        return graph

    def launch(self, graph: object) -> None:
        """Queue what was captured."""
        self._do(lambda: self._session.launch(graph))

    def free_graphs(self) -> None:
        """Free all that was captured; an engine that it was captured from must still be there."""
        while self._graphs:
            self._do(lambda: self._session.free_graph(self._graphs[-1]))
            self._graphs.pop()

    def close(self) -> None:
        """Wait for what was queued, free everything, and give the GPU back; a second time does nothing.

        Raises:
            DeviceLostError: it is lost only now.
            EnvironmentLacksError: something could not be freed; the rest was.
        """
        if self._closed or self._lost is not None:
            self._closed = True
            return
        self._require_this_thread()
        first: EdgeFetalError | None = None
        for step in self._last_steps():
            try:
                self._do(step)
            except DeviceLostError:  # noqa: PERF203 - each step has its own error, and they are few
                self._closed = True
                raise
            except EdgeFetalError as error:
                first = first or error
        self._closed = True
        if first is not None:
            raise first

    def _last_steps(self) -> list[Callable[[], None]]:
        session = self._session
        steps: list[Callable[[], None]] = [session.synchronise]
        steps += [lambda graph=graph: session.free_graph(graph) for graph in self._graphs]  # type: ignore[misc]
        steps += [lambda address=address: session.free_device(address) for address in self._addresses]  # type: ignore[misc]
        steps += [lambda host=host: session.free_host(host) for host in self._hosts]  # type: ignore[misc]
        self._graphs, self._addresses, self._hosts, self._buffers = [], [], [], []
        return [*steps, session.close]

    def _do(self, step: Callable[[], T]) -> T:
        """Take a step on the GPU, if one may be taken, and translate what CUDA answers."""
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        self._require_this_thread()
        if self._closed:
            raise InputError("The GPU was given back, so nothing runs on it any more; open it anew.")
        try:
            return step()
        except CudaError as error:
            if error.number in STICKY:
                self._lost = (
                    f"The GPU is lost to this process ({error}), and nothing more can run on it until the program is "
                    "started again; start it again."
                )
                raise DeviceLostError(self._lost) from error
            remedy = (
                "close what else uses its memory"
                if error.number == _OUT_OF_MEMORY
                else "look whether `nvidia-smi`, or `tegrastats` on a Jetson, sees it"
            )
            message = f"The GPU did not do what it was asked for ({error}); {remedy}, and try again."
            raise EnvironmentLacksError(message) from error

    def _require_this_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise InputError("The GPU was opened by another thread; use it there, or open it in this one.")

    def _require_ours(self, buffer: Buffer) -> None:
        if not any(buffer is ours for ours in self._buffers):
            raise InputError("The GPU was asked to copy what it does not hold; use a buffer of its own.")
