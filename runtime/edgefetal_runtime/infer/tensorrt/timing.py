"""How long an engine takes, with the copies to the GPU and back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.backends import Backend


@dataclass(frozen=True)
class RunTimes:
    """Time from an array in the processor's memory to answers there.

    Args:
        p50_ms: median.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float


def time_runs(graph: Backend, image: npt.NDArray[np.float32], *, rounds: int, warm_up: int) -> RunTimes:
    """Run one image many times and time each run.

    Args:
        graph: the engine, or any back end to compare it with.
        image: shape (1, 1, H, W).
        rounds: runs that count.
        warm_up: runs before them.
    """
    for _ in range(warm_up):
        graph.run(image)
    seconds = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        graph.run(image)
        seconds.append(time.perf_counter() - started_s)
    p50, p95, p99 = (1e3 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return RunTimes(p50, p95, p99)
