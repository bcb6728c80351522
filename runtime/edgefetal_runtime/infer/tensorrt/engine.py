"""The TensorRT back end: runs an engine that was built, proven and verified on this device.

A frame goes from the caller's array to page-locked memory, to the GPU, through the engine and back, all queued on one
stream and waited for once. Where CUDA graphs can be made the whole way is captured once and launched as one.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_devices.errors import (
    BundleError,
    CheckFailedError,
    DeviceLostError,
    EdgeFetalError,
    EnvironmentLacksError,
    InputError,
)
from edgefetal_runtime.infer.tensorrt.cuda import Buffer, Cuda, Device, DeviceFacts
from edgefetal_runtime.infer.tensorrt.log import Logger, make_logger, said
from edgefetal_runtime.infer.tensorrt.thread import OwnThread

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

    from edgefetal_runtime.infer.tensorrt.api import TensorRT

NAME: Final = "tensorrt"
_ANEW: Final = "build the engine anew with `edgefetal finish BUNDLE`"
# The first run allocates, and may change what the second one does.
_WARM_UP_RUNS: Final = 3
# A number that is none, as no network makes it: where it is left standing in an answer, nothing was copied there.
_NOT_COPIED: Final = np.uint32(0x7FA5EDFE)
# What is left on the GPU when the program ends may take so long; the system frees the rest.
_END_S: Final = 10.0


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Args:
        name: its name.
        shape: (1, ...), fixed.
    """

    name: str
    shape: tuple[int, ...]


class TensorRTGraph:
    """An engine that is ready to run, from any thread; a thread of its own owns it and the GPU.

    Once the GPU is lost every further run raises DeviceLostError, and nothing touches the GPU any more.

    Attributes:
        name: `tensorrt`.
        lanes: 1; one thread owns the GPU.
        input_shape: (1, 1, H, W).
        facts: what the GPU said of itself when the engine was opened.
        no_graph: why the runs are queued one by one and not launched as one CUDA graph; None where they are.
    """

    name = NAME
    lanes = 1

    def __init__(self, thread: OwnThread) -> None:
        """Take over a thread that keeps an opened engine."""
        engine: _Engine = thread.kept
        self.input_shape = engine.inputs[0].shape
        self.facts = engine.facts
        self.no_graph = engine.no_graph
        self._thread = thread
        self._one_at_a_time = threading.Lock()
        self._end = weakref.finalize(self, _end, thread)

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name, which are the caller's.

        Raises:
            InputError: the input is of another shape or type, or the engine was closed.
            DeviceLostError: the GPU is lost to this process.
            EnvironmentLacksError: CUDA did not do what it was asked for.
            CheckFailedError: TensorRT did not run the engine, or an answer did not come back whole.
        """
        if image.shape != self.input_shape or image.dtype != np.float32:
            message = (
                f"The engine takes float32 of shape {self.input_shape}, not {image.dtype} of shape {image.shape}; "
                "prepare the frame as the bundle says."
            )
            raise InputError(message)
        thread = self._thread
        with self._one_at_a_time:
            if thread.kept is None:
                raise InputError("The engine was closed; open it anew.")
            return thread.do(lambda: thread.kept.run(image))

    def inspect(self) -> str:
        """Return what TensorRT says of the engine's layers, as JSON; in detail where it was built so.

        Raises:
            InputError: the engine was closed.
            DeviceLostError: the GPU is lost to this process.
        """
        thread = self._thread
        with self._one_at_a_time:
            if thread.kept is None:
                raise InputError("The engine was closed; open it anew.")
            said: str = thread.do(thread.kept.inspect)
            return said

    def close(self) -> None:
        """Free the engine and the GPU; a second time, and once the GPU is lost, it does nothing."""
        with self._one_at_a_time:
            self._end()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def open_plan(plan: bytes, tensorrt: TensorRT, cuda: Cuda, *, use_graph: bool) -> TensorRTGraph:
    """Load an engine, and run it a few times, so that the first frame takes no longer than others.

    Args:
        plan: the serialised engine. It holds code for the GPU: give only what was verified.
        tensorrt: the module.
        cuda: the library for the GPU's memory.
        use_graph: launch a CUDA graph where one can be made; `TensorRTGraph.no_graph` says why it is not.

    Raises:
        BundleError: TensorRT does not accept the engine here, or it is not what our networks are.
        EnvironmentLacksError: there is no GPU, or not enough of its memory.
        DeviceLostError: the GPU is lost to this process.
        CheckFailedError: the engine does not run.
    """
    thread = OwnThread("tensorrt")
    engine = thread.kept = _Engine(tensorrt, cuda)
    try:
        thread.do(lambda: engine.open(plan, use_graph=use_graph))
    except BaseException:
        _end(thread)
        raise
    return TensorRTGraph(thread)


def read_facts(cuda: Cuda) -> DeviceFacts:
    """Ask the first GPU what it is.

    Raises:
        EnvironmentLacksError: there is none, or it cannot be had.
        DeviceLostError: the GPU is lost to this process.
    """
    thread = OwnThread("gpu facts")

    def ask() -> DeviceFacts:
        thread.kept = device = Device(cuda)
        try:
            return device.facts()
        finally:
            device.close()

    try:
        facts = thread.do(ask)
    except DeviceLostError:
        # The thread stays, and what it keeps.
        raise
    except BaseException:
        thread.end()
        raise
    thread.end()
    return facts


def _end(thread: OwnThread) -> None:
    """Close the engine of a thread and end it; after a loss, or if it hangs, both stay as they are."""

    def close() -> bool:
        engine: _Engine = thread.kept
        with suppress(EdgeFetalError):
            engine.close()
        return engine.lost

    with suppress(TimeoutError):
        if not thread.do(close, _END_S):
            thread.end()


class _Engine:
    """An engine with all that it needs, in the one thread that may touch it.

    What TensorRT made is reached through this object alone, and never by a local variable: a traceback keeps those,
    and would free them later, in another thread, when the GPU was given back.
    """

    def __init__(self, tensorrt: TensorRT, cuda: Cuda) -> None:
        self._tensorrt, self._cuda = tensorrt, cuda
        self._logger: Logger = make_logger(tensorrt)
        self._device: Device | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._buffers: dict[str, Buffer] = {}
        self._graph: object | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.no_graph: str | None = "it was not asked for"
        self.facts: DeviceFacts

    @property
    def lost(self) -> bool:
        return self._device is not None and self._device.lost

    @property
    def device(self) -> Device:
        if self._device is None:
            raise InputError("The engine was closed; open it anew.")
        return self._device

    def open(self, plan: bytes, *, use_graph: bool) -> None:
        """Open everything; what an error leaves open, `close` closes."""
        # A context that was lost before, in this process, is found out here and not in a figure.
        self._device = Device(self._cuda)
        self.facts = self._device.facts()
        try:
            self._load(plan)
            self.inputs, self.outputs = self._tensors()
            for tensor in (*self.inputs, *self.outputs):
                self._make_room(tensor)
        # Where TensorRT cannot make an object its binding raises what it likes.
        except Exception as error:
            # Where TensorRT only says that it failed, CUDA says here whether the GPU is lost.
            self.device.synchronise()
            if isinstance(error, EdgeFetalError):
                raise
            message = f"TensorRT does not take the engine ({error}; {said(self._logger)}); {_ANEW}."
            raise BundleError(message) from error
        self._warm_up(use_graph=use_graph)

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input of the right shape and type."""
        return self._answers(image, self._graph)

    def close(self) -> None:
        """Free everything in order: graphs, then what TensorRT made, then memory and the GPU.

        Raises:
            DeviceLostError: the GPU is lost, and nothing was freed.
        """
        device = self._device
        if device is None:
            return
        for step in (device.synchronise, device.free_graphs):
            try:
                step()
            except EdgeFetalError:  # noqa: PERF203 - there are two
                # What TensorRT made would touch the GPU when it is freed.
                if device.lost:
                    raise
        self._graph = self._context = self._engine = self._runtime = None
        try:
            device.close()
        finally:
            if not device.lost:
                self._device = None

    def inspect(self) -> str:
        """Ask TensorRT what its layers are."""
        kind = self._tensorrt.module.LayerInformationFormat.JSON
        return str(self._engine.create_engine_inspector().get_engine_information(kind))

    def _load(self, plan: bytes) -> None:
        """Read the engine and make the one context in which it runs."""
        self._logger.errors.clear()
        self._runtime = self._tensorrt.module.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            message = f"TensorRT {self._tensorrt.version} does not accept the engine ({said(self._logger)}); {_ANEW}."
            raise BundleError(message)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            message = (
                f"TensorRT cannot make room for the engine on the GPU ({said(self._logger)}); close what else uses its "
                "memory."
            )
            raise EnvironmentLacksError(message)

    def _tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Describe the engine's inputs and outputs.

        Raises:
            BundleError: it has other ones than our networks have.
        """
        trt = self._tensorrt.module
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            tensor = Tensor(str(name), tuple(int(length) for length in self._engine.get_tensor_shape(name)))
            problem = _problem(
                tensor,
                is_float32=self._engine.get_tensor_dtype(name) == trt.DataType.FLOAT,
                is_linear=self._engine.get_tensor_format(name) == trt.TensorFormat.LINEAR,
                on_gpu=self._engine.get_tensor_location(name) == trt.TensorLocation.DEVICE,
            )
            if problem is not None:
                raise BundleError(f"The engine's {tensor.name} {problem}; {_ANEW}.")
            (inputs if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(tensor)
        if len(inputs) != 1 or not outputs or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 1:  # noqa: PLR2004 - 1, 1, H, W
            shapes = ", ".join(str(tensor.shape) for tensor in inputs) or "none"
            message = (
                f"The engine takes {shapes} and gives {len(outputs)} outputs, where one input of shape (1, 1, H, W) "
                f"and an output are needed; {_ANEW}."
            )
            raise BundleError(message)
        return tuple(inputs), tuple(outputs)

    def _make_room(self, tensor: Tensor) -> None:
        buffer = self._buffers[tensor.name] = self.device.new_buffer(tensor.shape)
        if not self._context.set_tensor_address(tensor.name, buffer.address):
            raise BundleError(f"TensorRT does not take memory for {tensor.name} ({said(self._logger)}); {_ANEW}.")

    def _warm_up(self, *, use_graph: bool) -> None:
        """Run a few times, and then make a graph if one can be made and answers as the engine does."""
        rng = np.random.default_rng(0)
        image, other = (rng.random(self.inputs[0].shape, np.float32) for _ in range(2))
        for _ in range(_WARM_UP_RUNS):
            expected = self._answers(image, None)
        if not use_graph:
            return
        self.no_graph = self.device.no_graphs or self._not_capturable()
        if self.no_graph is not None:
            return
        try:
            graph = self.device.capture(self._queue)
            # So that what is left over from the run before is not taken for the graph's answer.
            self._answers(other, None)
            answers = self._answers(image, graph)
        except EdgeFetalError as error:
            self.no_graph = str(error)
        else:
            same = all(np.array_equal(answers[name], value, equal_nan=True) for name, value in expected.items())
            self._graph, self.no_graph = (graph, None) if same else (None, "its answer is not the engine's")
        if self._graph is None:
            # It must still run after the attempt; and if the attempt lost the GPU, this says so.
            self._answers(image, None)

    def _not_capturable(self) -> str | None:
        """Ask the newer TensorRTs, which know; the others find out by trying."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return None if ask is None or ask(self.device.stream) else "TensorRT cannot capture this engine"

    def _answers(self, image: npt.NDArray[np.float32], graph: object | None) -> dict[str, npt.NDArray[np.float32]]:
        """Take an image through, and copy the answers out of the memory that the next run overwrites."""
        device = self.device
        np.copyto(self._buffers[self.inputs[0].name].host, image)
        for tensor in self.outputs:
            self._buffers[tensor.name].host.view(np.uint32).fill(_NOT_COPIED)
        try:
            if graph is None:
                self._queue()
            else:
                device.launch(graph)
        finally:
            # Likewise.
            device.synchronise()
        answers = {}
        for tensor in self.outputs:
            answer = self._buffers[tensor.name].host.copy()
            if (answer.view(np.uint32) == _NOT_COPIED).any():
                message = f"The GPU's answer {tensor.name} did not come back whole; start the program again."
                raise CheckFailedError(message)
            answers[tensor.name] = answer
        return answers

    def _queue(self) -> None:
        """Queue the way of a frame: to the GPU, through the engine, and back."""
        device = self.device
        device.copy_in(self._buffers[self.inputs[0].name])
        self._logger.errors.clear()
        try:
            queued = self._context.execute_async_v3(device.stream)
        # It answers with False; what else its binding may raise, it does not say.
        except Exception as error:  # noqa: BLE001 - likewise
            self._logger.errors.append(str(error))
            queued = False
        if not queued:
            raise CheckFailedError(f"TensorRT did not run the engine ({said(self._logger)}); {_ANEW}.")
        for tensor in self.outputs:
            device.copy_out(self._buffers[tensor.name])


def _problem(tensor: Tensor, *, is_float32: bool, is_linear: bool, on_gpu: bool) -> str | None:
    """Say what is wrong with an input or output, or None."""
    if not is_float32:
        return "is not float32"
    if not is_linear:
        return "does not lie row by row in memory"
    if not on_gpu:
        return "does not lie in the GPU's memory"
    if not tensor.shape or min(tensor.shape) < 1:
        return f"has no fixed shape, but {tensor.shape}"
    if tensor.shape[0] != 1:
        return f"is of {tensor.shape[0]} pictures at a time, and not of one"
    return None
