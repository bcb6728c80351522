"""A graph in a process of its own, for a back end that must not share one with another library.

Parent and child speak through the child's standard input and output: a line of JSON, and behind it the arrays that it
names, as their bytes. The child ends when its input does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, cast

import numpy as np

from edgefetal_devices.errors import BundleError, CheckFailedError, EdgeFetalError, EnvironmentLacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[np.float32]]

_END_S: Final = 10.0
# So that a frame need not go in pieces; more than this Linux does not let every user have.
_PIPE_BYTES: Final = 2**20
# Kinds of what the child could not do, and what the parent raises.
_LACKS, _REFUSES = "lacks", "refuses"


class ChildGraph:
    """A graph that another process runs.

    Attributes:
        name: of the back end.
        lanes: 1, because all runs go through one pipe.
        last_s: what the last run took there, without handing it over, which is the tool's business and not the graph's.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Take over a process in which the graph is loaded.

        Args:
            name: of the back end.
            process: with pipes; it is ended with this object.
        """
        self.name, self.lanes, self.last_s = name, 1, 0.0
        self._process = process
        self._end = weakref.finalize(self, _end, process)

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run one input, shape (1, 1, H, W); return the outputs by name.

        Raises:
            CheckFailedError: the graph does not run, or its process has ended.
        """
        try:
            _write(_pipe(self._process.stdin), {}, {"image": image})
            header, answers = _read(_pipe(self._process.stdout))
        # An answer that was cut short, or pipes that were closed when it ended before, make a ValueError.
        except (OSError, EOFError, ValueError) as error:
            self._end()
            message = (
                f"The process that ran the graph on {self.name} ended (code {self._process.returncode}); try again, or "
                "take another --backend or --device."
            )
            raise CheckFailedError(message) from error
        if "failed" in header:
            raise CheckFailedError(f"The graph does not run on {self.name} ({header['failed']}); build it anew.")
        self.last_s = float(header["seconds"])
        return answers


def open_in_child(name: str, module: str, model: bytes, threads: int | None) -> ChildGraph:
    """Load a graph into a back end in a process of its own.

    Args:
        name: of the back end.
        module: that offers `open_graph`.
        model: the ONNX graph, whole.
        threads: CPU threads, or None for the back end's own choice.

    Raises:
        ImportError: the back end is not installed there either; says why.
        BundleError: the back end does not accept the graph.
        EnvironmentLacksError: the process ended before it had loaded the graph.
    """
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE_BYTES
    )
    try:
        content = np.frombuffer(model, np.uint8)
        _write(_pipe(process.stdin), {"module": module, "threads": threads}, {"model": content})
        header, _ = _read(_pipe(process.stdout))
    except (OSError, EOFError) as error:
        _end(process)
        message = f"The process that was to run the graph on {name} ended (code {process.returncode}); try again."
        raise EnvironmentLacksError(message) from error
    if header:
        _end(process)
        if _LACKS in header:
            raise ImportError(header[_LACKS])
        raise BundleError(header[_REFUSES])
    return ChildGraph(name, process)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - it was asked for
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child by ending its input, and wait for it; one that does not listen is killed."""
    # It may be in the middle of a frame, or gone.
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            _pipe(stream).close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write(stream: IO[bytes], header: dict[str, Any], arrays: Arrays | Mapping[str, npt.NDArray[np.uint8]]) -> None:
    described = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    stream.write(json.dumps({"header": header, "arrays": described}).encode() + b"\n")
    for array in arrays.values():
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what `_write` wrote.

    Raises:
        EOFError: the other side has ended.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    said = json.loads(line)
    arrays = {}
    for name, (kind, shape) in said["arrays"].items():
        dtype = np.dtype(kind)
        content = stream.read(dtype.itemsize * int(np.prod(shape)))
        arrays[name] = np.frombuffer(content, dtype).reshape(shape)
    return said["header"], arrays


def _serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Load the graph that comes first, and answer for every image after it."""
    asked, sent = _read(source)
    try:
        open_graph = cast("Callable[[bytes, int | None], Any]", importlib.import_module(asked["module"]).open_graph)
        graph = open_graph(sent["model"].tobytes(), asked["threads"])
    except (ImportError, OSError) as error:
        _write(target, {_LACKS: str(error)}, {})
        return
    except EdgeFetalError as error:
        _write(target, {_REFUSES: str(error)}, {})
        return
    _write(target, {}, {})
    while True:
        try:
            _, images = _read(source)
        except EOFError:
            return
        started_s = time.perf_counter()
        try:
            answers = graph.run(images["image"])
        # Each back end has exceptions of its own.
        except Exception as error:  # noqa: BLE001 - likewise
            _write(target, {"failed": str(error)}, {})
            continue
        _write(target, {"seconds": time.perf_counter() - started_s}, answers)


def _main() -> None:
    """Speak on what was standard output, and let nothing else print there."""
    # Ctrl-C goes to both processes; the parent then ends this one by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as target:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        _serve(sys.stdin.buffer, target)


if __name__ == "__main__":
    _main()
