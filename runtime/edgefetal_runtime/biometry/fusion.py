"""One value from several frames, and how many independent frames it is worth.

Successive frames of a sweep show nearly the same picture and share nearly the same error, so fusing them narrows an
interval hardly at all; frames of other sweeps do more. The number of independent frames is taken from the values'
own autocorrelation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.biometry.measurement import Abstained

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_MAD_TO_SIGMA = 1.4826
# Values farther than this many robust standard deviations from the median are outliers ...
_OUTLIER_SIGMAS = 3.5
# ... but none nearer than this share of the value, or equal values would make outliers of all others.
_MIN_SPREAD = 0.005
# Fewer frames in a sweep than this say nothing about their correlation, and count as one.
MIN_SERIES = 8
# Lags up to this many correlation times are summed: fewer cut the tail off, more add noise.
_WINDOW = 5
# More outliers than this share, and the frames do not show one thing.
MAX_OUTLIER_SHARE = 0.34


@dataclass(frozen=True)
class Fused:
    """What several frames say together.

    Args:
        value: the median of those that agree.
        effective_frames: number of independent frames that they are worth, at least 1.
        kept: for every sweep which of its frames agree.
    """

    value: float
    effective_frames: float
    kept: tuple[tuple[bool, ...], ...]


def fuse(sweeps: Sequence[Sequence[float]]) -> Fused | Abstained:
    """Fuse values of one measure over the frames of one or more sweeps of one examination.

    Args:
        sweeps: for every sweep its values, in the order of its frames; at least one value in all.
    """
    values = np.array([value for sweep in sweeps for value in sweep], dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        return Abstained("there are no frames to fuse")
    median = float(np.median(values))
    spread = max(_MAD_TO_SIGMA * float(np.median(np.abs(values - median))), _MIN_SPREAD * abs(median))
    agree = np.abs(values - median) <= _OUTLIER_SIGMAS * spread
    if np.count_nonzero(~agree) > MAX_OUTLIER_SHARE * len(values):
        return Abstained(
            f"{np.count_nonzero(~agree)} of {len(values)} frames contradict the others; sweep again, slowly"
        )
    value = float(np.median(values[agree]))
    ends = np.cumsum([len(sweep) for sweep in sweeps])[:-1]
    kept = np.split(agree, ends)
    effective = sum(
        effective_frames(series[of_sweep]) for series, of_sweep in zip(np.split(values, ends), kept, strict=True)
    )
    return Fused(value, max(1.0, effective), tuple(tuple(map(bool, of_sweep)) for of_sweep in kept))


def effective_frames(series: npt.NDArray[np.float64]) -> float:
    """Number of independent values that a series is worth, from 0 for an empty one to its length.

    The smaller of two figures, as one sees what the other misses. The length over the integrated autocorrelation time,
    with Sokal's self-consistent window (1997), holds for a correlation of any form, but on a few dozen frames it cuts
    most of a long one off. The first-order autoregressive one, n (1 - r) / (1 + r), takes the neighbours' correlation
    alone, corrected for its bias (Marriott and Pope 1954) and raised by one standard error, since a sweep too short to
    tell is not to narrow an interval.
    """
    n = len(series)
    if n < MIN_SERIES:
        return float(min(n, 1))
    centred = series - series.mean()
    variance = float(centred @ centred)
    # A series that does not vary shows one frame, many times.
    if variance <= (1e-9 * float(np.abs(series).max())) ** 2 * n:
        return 1.0
    correlation = np.correlate(centred, centred, "full")[n - 1 :] / variance
    neighbours = float(correlation[1]) + (1 + 4 * float(correlation[1])) / n
    neighbours += math.sqrt(max(1 - neighbours**2, 0.0) / n)
    neighbours = min(max(neighbours, 0.0), 1.0)
    effective = n * min(1 / _correlation_time(correlation), (1 - neighbours) / (1 + neighbours))
    return min(max(effective, 1.0), float(n))


def _correlation_time(correlation: npt.NDArray[np.float64]) -> float:
    """Integrated autocorrelation time, at least 1, from the correlations at lags 0 to n - 1."""
    n = len(correlation)
    # The series' own mean was taken off, which pulls every correlation down by about one n-th of the time it is worth.
    times = 1 + 2 * np.cumsum(correlation[1:] + 1 / n)
    enough = np.flatnonzero(np.arange(1, n) >= _WINDOW * times)
    return max(float(times[enough[0]]) if len(enough) else float(n), 1.0)
