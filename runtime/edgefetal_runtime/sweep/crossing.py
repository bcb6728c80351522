"""Whether a sweep went across the plane that it was to find, by the size of what was outlined along it.

Cut along parallel planes, a head, an abdomen or a femur grows up to its true plane and shrinks beyond it. So the
largest section of a sweep is the true plane only if the sweep is seen to grow towards it and not to be cut off while it
still grows; where it is cut off, a larger one lay further on, and the value would be too small with nothing to show it.
The published rules take the largest section wherever it lies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

# Frames with at least this share of the largest size are those around the plane.
NEAR_SHARE = 0.95
# Over the part of a parabola within `NEAR_SHARE` of its top, the middle third lies above an outer one by 2 % if both
# sides were seen, and below it by 1.1 % if the sweep was cut off at the very top.
TURN = 0.011
# Larger outlines elsewhere than the chosen ones, by more than this, contradict the choice.
MAX_LARGER = 1.05
_MIN_FRAMES = 3
_MAD_TO_SIGMA = 1.4826
# A median scatters so much more than a mean.
_MEDIAN_EFFICIENCY = 1.2533
_MIN_CONTRADICTING = 2


def why_not_crossed(sizes: npt.NDArray[np.float64], smoothed: npt.NDArray[np.float64], structure: str) -> str | None:
    """Say why the largest section of a sweep need not be the true plane; None where it is seen to be.

    Args:
        sizes: of the structure in every frame of the sweep, shape (N,), 0 where none was outlined.
        smoothed: the same without flashes, likewise; 0 where what was outlined did not last.
        structure: its name.

    Returns:
        One sentence with what to do next, or None.
    """
    peak = float(smoothed.max(initial=0.0))
    if peak <= 0:
        return f"the {structure} never lasted; hold the probe still on it"
    if np.count_nonzero(sizes > MAX_LARGER * peak) >= _MIN_CONTRADICTING:
        return f"a larger section of the {structure} flashed by; sweep again, more slowly"
    near = np.flatnonzero(smoothed >= NEAR_SHARE * peak)
    few = too_few(len(near), structure)
    if few is not None:
        return few
    first, last = (rise / peak for rise in _rises(smoothed[near], np.mean))
    for rise, touches, end in (
        # The first and last two frames are judged by fewer than five, which noise alone makes smaller than the rest.
        (first, near[0] < _MIN_FRAMES, "begins"),
        (last, near[-1] >= len(sizes) - _MIN_FRAMES, "ends"),
    ):
        if rise >= -TURN and touches and rise < TURN:
            return f"the sweep {end} on the {structure}, and its true plane may lie beyond; sweep across all of it"
    # Smoothing flattens the end of a run that something cut off in mid-sweep; medians of the sizes themselves do not.
    lasting = sizes[(smoothed > 0) & (sizes >= NEAR_SHARE * peak)]
    slack = _uncertainty(lasting)
    unsmoothed = [(rise + slack) / peak for rise in _rises(lasting, np.median)]
    for rise, raw, side in ((first, unsmoothed[0], "before"), (last, unsmoothed[1], "after")):
        if min(rise, raw) < -TURN:
            return (
                f"the {structure} was largest at the edge of where it was seen, and its true plane may lie {side} "
                "that; sweep again across all of it"
            )
    return None


def too_few(frames: int, structure: str) -> str | None:
    """Say why so many frames near the largest section are too few to tell, or None."""
    if frames >= _MIN_FRAMES:
        return None
    return f"the {structure} was crossed in fewer than {_MIN_FRAMES} frames; sweep again, more slowly"


def _rises(values: npt.NDArray[np.float64], average: Callable[..., np.floating]) -> tuple[float, float]:
    """Return how far the middle third of values, in order, lies above the first and above the last."""
    first, middle, last = (float(average(part)) for part in np.array_split(values, 3))
    return middle - first, middle - last


def _uncertainty(values: npt.NDArray[np.float64]) -> float:
    """Standard error of the difference of two thirds' medians, by how far neighbours scatter round their trend."""
    steps = np.diff(values)
    if len(steps) < _MIN_FRAMES:
        return 0.0
    scatter = _MAD_TO_SIGMA * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
    return _MEDIAN_EFFICIENCY * scatter * math.sqrt(2 / (len(values) / 3))
