"""A whole examination, whose stages overlap, beside the network alone on the same frames, in turns."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_runtime.bench.statistics import Interval, median_interval
from edgefetal_runtime.exam.pipeline import examine
from edgefetal_runtime.exam.stages import in_lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.protocol import Source

# Prepared frames are kept for the bare passes: so many at most, 100 MB at 384 x 256.
MAX_KEPT: Final = 256


@dataclass(frozen=True)
class Throughput:
    """How many frames a second come out.

    Args:
        whole_fps: of the whole examination, median of the passes.
        bare_fps: of the network alone, likewise.
        ratio: the one over the other, of passes that followed each other.
        cpu_cores: processor seconds a second that this process used in the whole examinations.
    """

    whole_fps: float
    bare_fps: float
    ratio: Interval
    cpu_cores: float


def time_whole(
    source: Source,
    bundle: Bundle,
    network: Network,
    pairs: int,
    *,
    simulated: bool,
    on_pass: Callable[[str], None] = lambda _: None,
) -> Throughput:
    """Time passes over all frames, the whole examination and the network alone, in an order that alternates.

    A bare pass runs the network on frames that were prepared beforehand, as the examination does: one after another, or
    in as many lanes. Where a source has more than `MAX_KEPT` frames it takes these over and over.

    Args:
        source: the frames; it can be read again.
        bundle: the network's.
        network: the network.
        pairs: passes of each.
        simulated: the source is a simulation.
        on_pass: called before each pass with `whole` or `bare`.

    Raises:
        SourceError: a frame cannot be read.
    """
    images: list[npt.NDArray[np.float32]] = []
    count = 0
    for frame in source.frames():
        if count < MAX_KEPT:
            images.append(network.prepare(frame.pixels)[0])
        count += 1
    cpu_s: list[float] = []

    def infer(number: int) -> int:
        network.infer(images[number % len(images)])
        return number

    def bare() -> None:
        lanes = network.backend.lanes
        done = map(infer, range(count)) if lanes == 1 else in_lanes(range(count), infer, lanes)
        deque(done, maxlen=0)

    def whole() -> None:
        since_s = _cpu_s()
        examine(source, "bench", bundle, network, simulated=simulated)
        cpu_s.append(_cpu_s() - since_s)

    passes = {"bare": bare, "whole": whole}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(pairs):
        for name in ("bare", "whole") if number % 2 else ("whole", "bare"):
            on_pass(name)
            since_s = time.perf_counter()
            passes[name]()
            seconds[name].append(time.perf_counter() - since_s)
    whole_s, bare_s = np.array(seconds["whole"]), np.array(seconds["bare"])
    return Throughput(
        whole_fps=count / float(np.median(whole_s)),
        bare_fps=count / float(np.median(bare_s)),
        ratio=median_interval(bare_s / whole_s),
        cpu_cores=sum(cpu_s) / float(whole_s.sum()),
    )


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system
