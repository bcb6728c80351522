"""From the values that a tensor took to the range that eight bits are to cover."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Range = tuple[float, float]

# Bins of each sign.
BINS = 2048
PERCENTILE = 99.99
# Steps of an unsigned or asymmetric range, and of one half of a symmetric one.
_STEPS, _HALF_STEPS = 255, 127
# Candidate ends of a range: every so many bins, and no nearer to zero than as many bins as there are steps.
_STRIDE = 16
# Share of the one distribution that is mixed into the other before their divergence is taken.
_MIX = 1e-4
# Values that are counted at once, few enough for a processor's cache.
_CHUNK = 1 << 15
_EMPTY: Range = (0.0, 0.0)


class Method(str, Enum):
    """How a range is chosen."""

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True, eq=False)
class Histogram:
    """The values of a tensor, counted.

    Args:
        low: the smallest.
        high: the largest.
        counts: shape (2 * BINS,): bins of one width from -m to m, where m is the larger magnitude of the two, so that
            zero lies between the middle bins.
        zeros: how many of them are exactly 0, which every range holds without error.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]
    zeros: int

    @property
    def width(self) -> float:
        """Width of a bin."""
        return max(-self.low, self.high) / BINS


def count(
    values: npt.NDArray[np.float32], low: float, high: float, into: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Count values into the bins of a `Histogram`.

    Args:
        values: of any shape, none beyond the range by more than rounding.
        low: the smallest value of the tensor in all pictures.
        high: the largest.
        into: counts to add to, or None to begin.
    """
    counts = np.zeros(2 * BINS, np.int64) if into is None else into
    magnitude = max(-low, high)
    if magnitude > 0:
        per_unit, flat = np.float32(BINS / magnitude), values.ravel()
        for start in range(0, flat.size, _CHUNK):
            places = (flat[start : start + _CHUNK] * per_unit + np.float32(BINS)).astype(np.int64)
            counts += np.bincount(np.minimum(places, 2 * BINS - 1), minlength=2 * BINS)
    return counts


def ranges(histogram: Histogram, *, symmetric: bool) -> dict[Method, Range]:
    """Choose a range by every method.

    Args:
        histogram: of the tensor.
        symmetric: whether the range is stretched to be symmetric about zero when it is used.
    """
    if histogram.width == 0:
        return dict.fromkeys(Method, _EMPTY)
    return {
        Method.MIN_MAX: (histogram.low, histogram.high),
        Method.PERCENTILE: _percentile(histogram),
        Method.ENTROPY: _entropy(histogram, symmetric=symmetric),
        Method.MSE: _least_squares(histogram, symmetric=symmetric),
    }


def _clipped(histogram: Histogram, low: float, high: float) -> Range:
    return max(histogram.low, low), min(histogram.high, high)


def _percentile(histogram: Histogram) -> Range:
    """Cut the same share of the values off at both ends, `PERCENTILE` percent being kept."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (100 - PERCENTILE) / 200
    left, right = (int(np.searchsorted(share, level)) for level in (cut, 1 - cut))
    # The outer edges of the bins in which the ends lie, so that nothing inside them is cut.
    return _clipped(histogram, (left - BINS) * histogram.width, (right + 1 - BINS) * histogram.width)


def _magnitudes(histogram: Histogram) -> npt.NDArray[np.int64]:
    """Count magnitudes, exact zeros left out; shape (BINS,)."""
    folded = histogram.counts[BINS:] + histogram.counts[:BINS][::-1]
    folded[0] -= histogram.zeros
    return folded


def _entropy(histogram: Histogram, *, symmetric: bool) -> Range:
    """Choose the magnitude at which the quantised distribution loses least information (Kullback and Leibler).

    As in Migacz, 8-bit inference with TensorRT, GTC 2017: what lies beyond counts into the last bin, and what lies
    within is spread evenly over the bins of each level that are not empty.
    """
    counts = _magnitudes(histogram).astype(np.float64)
    one_sided = histogram.low >= 0 or histogram.high <= 0
    levels = 256 if one_sided and not symmetric else 128
    beyond = counts[::-1].cumsum()[::-1]
    best, least = BINS, np.inf
    for end in range(levels, BINS + 1, _STRIDE):
        kept = counts[:end]
        reference = kept.copy()
        reference[-1] += beyond[end] if end < BINS else 0.0
        divergence = _divergence(reference, _levelled(kept, reference > 0, levels))
        if divergence < least:
            best, least = end, divergence
    return _clipped(histogram, -best * histogram.width, best * histogram.width)


def _levelled(counts: npt.NDArray[np.float64], filled: npt.NDArray[np.bool_], levels: int) -> npt.NDArray[np.float64]:
    """Merge bins into levels and spread each over its filled bins."""
    starts = np.arange(levels) * len(counts) // levels
    totals, numbers = np.add.reduceat(counts, starts), np.add.reduceat(filled.astype(np.int64), starts)
    level = np.searchsorted(starts, np.arange(len(counts)), side="right") - 1
    return np.where(filled, (totals / np.maximum(numbers, 1))[level], 0.0)


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Return the divergence of q from p in nats, both being counts."""
    if not (p.any() and q.any()):
        return float(np.inf)
    p, q = p / p.sum(), q / q.sum()
    filled = p > 0
    # Where only p is filled the divergence would be infinite, and one such bin would outweigh all others.
    mixed = (1 - _MIX) * q[filled] + _MIX * p[filled]
    return float((p[filled] * np.log(p[filled] / mixed)).sum())


def _least_squares(histogram: Histogram, *, symmetric: bool) -> Range:
    """Choose the ends that make the squared error least, at 256 levels.

    A value within is off by a rounding that is uniform over a step, so by step^2 / 12 in square; one beyond by its
    distance from the end. Exact zeros are off by nothing.
    """
    centres = (np.arange(2 * BINS, dtype=np.float64) + 0.5 - BINS) * histogram.width
    counts = histogram.counts.astype(np.float64)
    counts[BINS] -= histogram.zeros
    right, left = (
        _beyond(counts[BINS:], centres[BINS:], histogram.width),
        _beyond(counts[:BINS][::-1], -centres[:BINS][::-1], histogram.width),
    )
    ends = np.arange(_STRIDE, BINS + 1, _STRIDE)
    size = ends * histogram.width
    total = counts.sum()
    if symmetric:
        step = size / _HALF_STEPS
        best = float(size[np.argmin(total * step**2 / 12 + right[ends] + left[ends])])
        return _clipped(histogram, -best, best)
    # One side of a one-sided tensor ends at zero.
    high, right_loss = (size, right[ends]) if histogram.high > 0 else (np.zeros(1), np.zeros(1))
    low, left_loss = (size, left[ends]) if histogram.low < 0 else (np.zeros(1), np.zeros(1))
    step = (low[:, None] + high[None, :]) / _STEPS
    error = total * step**2 / 12 + left_loss[:, None] + right_loss[None, :]
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return _clipped(histogram, -float(low[row]), float(high[column]))


def _beyond(counts: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    """Return the squared error of clipping at each edge, shape (BINS + 1,); centres ascend from zero."""
    edges = np.arange(BINS + 1) * width

    def tail(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.append(values[::-1].cumsum()[::-1], 0.0)

    n, first, second = tail(counts), tail(counts * centres), tail(counts * centres**2)
    # Sums of large and nearly equal numbers may fall a little below zero.
    return np.maximum(second - 2 * edges * first + edges**2 * n, 0.0)
