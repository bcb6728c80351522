"""Latency of networks side by side: interleaved runs, so that what disturbs one disturbs the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.infer.child import ChildGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_runtime.infer.network import Network

_RESAMPLES = 2000


@dataclass(frozen=True)
class Latency:
    """Time from a frame's pixels to the network's answer.

    Args:
        prepare_ms: preprocessing, median.
        infer_p50_ms: the network, median.
        infer_p95_ms: the network, 95th percentile.
        infer_max_ms: the network, slowest run.
    """

    prepare_ms: float
    infer_p50_ms: float
    infer_p95_ms: float
    infer_max_ms: float


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one network is as another, from pairs of neighbouring runs.

    Args:
        median: median over the pairs.
        low: lower bound of the median's 95 % bootstrap interval.
        high: upper bound.
    """

    median: float
    low: float
    high: float


def time_networks(
    networks: Mapping[str, Network],
    pixels: npt.NDArray[np.uint8],
    *,
    rounds: int,
    warm_up: int,
    on_round: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Latency], dict[str, npt.NDArray[np.float64]]]:
    """Time several networks on one frame, in turns, in an order that alternates.

    Args:
        networks: networks by name.
        pixels: the frame, shape (H, W), uint8.
        rounds: timed runs of each network.
        warm_up: runs before these that are not timed.
        on_round: called after every round.

    Returns:
        The figures of each network, and the network's seconds in every round.
    """
    prepare_s: dict[str, list[float]] = {name: [] for name in networks}
    infer_s: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(-warm_up, rounds):
        order = list(networks) if number % 2 else list(networks)[::-1]
        for name in order:
            started_s = time.perf_counter()
            image, _ = networks[name].prepare(pixels)
            prepared_s = time.perf_counter()
            networks[name].infer(image)
            ended_s = time.perf_counter()
            if number >= 0:
                prepare_s[name].append(prepared_s - started_s)
                infer_s[name].append(_graph_seconds(networks[name], ended_s - prepared_s))
        on_round()
    seconds = {name: np.array(values) for name, values in infer_s.items()}
    latencies = {
        name: Latency(
            prepare_ms=1e3 * float(np.median(prepare_s[name])),
            infer_p50_ms=1e3 * float(np.median(values)),
            infer_p95_ms=1e3 * float(np.percentile(values, 95)),
            infer_max_ms=1e3 * float(values.max()),
        )
        for name, values in seconds.items()
    }
    return latencies, seconds


def _graph_seconds(network: Network, elapsed_s: float) -> float:
    """Return what a graph took: what has passed, or where it runs in a process of its own, what it took there."""
    return network.backend.last_s if isinstance(network.backend, ChildGraph) else elapsed_s


def speed_ratio(
    slow_s: Sequence[float] | npt.NDArray[np.float64], fast_s: Sequence[float] | npt.NDArray[np.float64]
) -> Ratio:
    """Compare two networks by the pairs of their runs in the same round."""
    pairs = np.asarray(slow_s) / np.asarray(fast_s)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(pairs, (_RESAMPLES, len(pairs))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Ratio(float(np.median(pairs)), float(low), float(high))
