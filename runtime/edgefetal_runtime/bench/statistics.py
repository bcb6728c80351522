"""What is said of many times: percentiles, jitter, when a warm-up is over, and the interval of a median."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Values = Sequence[float] | npt.NDArray[np.float64]

# A bench that is run after every change must not cry wolf once in twenty runs.
LEVEL: Final = 0.99
# Of fewer values the 99th percentile is just the largest.
_LEAST_FOR_P99: Final = 100
# The warm-up is over when the medians of two successive windows of frames differ by less than this share.
WINDOW: Final = 10
STABLE_WITHIN: Final = 0.03


@dataclass(frozen=True)
class Percentiles:
    """How long things took, in ms.

    Args:
        n: how many there were.
        mean: mean.
        p50: median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile; None of fewer than 100.
        max: the longest.
        jitter: mean absolute difference of neighbours; 0 of one.
    """

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float | None
    max: float
    jitter: float


@dataclass(frozen=True)
class Interval:
    """A median, and where the true one lies.

    Args:
        median: of the values.
        low: lower bound; None where there are too few values to give one.
        high: upper bound, likewise.
        level: share of such intervals that hold the true median, at least.
        n: number of values.
    """

    median: float
    low: float | None
    high: float | None
    level: float
    n: int

    def side(self) -> int:
        """Tell on which side of 1 it lies: 1 above, -1 below, 0 where it holds 1 or there is no interval."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 1 else -1 if self.high < 1 else 0


def percentiles(seconds: Values) -> Percentiles:
    """Summarise times in the order in which they were taken.

    Args:
        seconds: at least one.
    """
    values = 1e3 * np.asarray(seconds, np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
    return Percentiles(
        n=len(values),
        mean=float(values.mean()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99 if len(values) >= _LEAST_FOR_P99 else None,
        max=float(values.max()),
        jitter=float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0,
    )


def least_values(level: float = LEVEL) -> int:
    """Return how many values an interval of the median needs at least: between their extremes it lies often enough."""
    return 1 + math.ceil(-math.log2(1 - level))


def median_interval(values: Values, level: float = LEVEL) -> Interval:
    """Return the median with its interval between two of the sorted values.

    Of n independent values the k-th from either end enclose the true median unless fewer than k of them fell on one
    side of it, each of which is a toss of a coin: no shape of distribution is assumed (Conover, Practical Nonparametric
    Statistics, on quantiles).

    Args:
        values: independent ones, at least one.
        level: share of such intervals that are to hold the true median, at least.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n, median = len(ordered), float(np.median(ordered))
    inside, missed = 0, 0.0
    for k in range(n // 2):
        missed += 2 * math.comb(n, k) * 0.5**n
        if missed > 1 - level:
            break
        inside = k + 1
    if not inside:
        return Interval(median, None, None, level, n)
    return Interval(median, float(ordered[inside - 1]), float(ordered[n - inside]), level, n)


def block_ratio(slow_s: Values, fast_s: Values) -> float:
    """Return how many times as fast one side was in a block of rounds whose order alternated.

    The rounds AB and the rounds BA each have a median, and the mean of the two counts: what being first or second costs
    falls out of it, and one turn that lost its core spoils one round and not two.

    Args:
        slow_s: seconds of the one side in every round, at least two.
        fast_s: those of the other, as many.
    """
    logs = np.log(np.asarray(slow_s, np.float64)) - np.log(np.asarray(fast_s, np.float64))
    return float(np.exp((np.median(logs[::2]) + np.median(logs[1::2])) / 2))


def is_warm(seconds: Values) -> bool:
    """Tell whether a warm-up is over: the medians of the last two windows of frames are nearly the same.

    Args:
        seconds: of every frame so far.
    """
    if len(seconds) < 2 * WINDOW:
        return False
    before, last = np.median(np.asarray(seconds, np.float64)[-2 * WINDOW :].reshape(2, WINDOW), axis=1)
    return bool(abs(last - before) < STABLE_WITHIN * before)
