"""Whether a sweep went across the plane that it was to find, by the size of what was outlined along it.

Cut along parallel planes, a head, an abdomen or a femur grows up to its true plane and shrinks beyond it. So the
largest section of a sweep is the true plane only if the sweep is seen to grow towards it and not to be cut off while it
still grows; where it is cut off, a larger one lay further on, and the value would be too small with nothing to show it.
The published rules take the largest section wherever it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# Frames with at least this share of the largest size are those around the plane.
NEAR_SHARE = 0.95
# Over the part of a parabola within `NEAR_SHARE` of its top, the middle third lies above an outer one by 2 % if both
# sides were seen, and below it by 1.1 % if the sweep was cut off at the very top.
TURN = 0.011
# Larger outlines elsewhere than the chosen ones, by more than this, contradict the choice.
MAX_LARGER = 1.05
_MIN_FRAMES = 3
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
    # Smoothing flattens the end of a run, which is the very place to look at; medians do without it.
    near = np.flatnonzero((smoothed > 0) & (sizes >= NEAR_SHARE * peak))
    if len(near) < _MIN_FRAMES:
        return f"the {structure} was crossed in fewer than {_MIN_FRAMES} frames; sweep again, more slowly"
    first, middle, last = (float(np.median(part)) / peak for part in np.array_split(sizes[near], 3))
    for outer, touches, end, side in (
        # The first and last two frames are judged by fewer than five, which noise alone makes smaller than the rest.
        (first, near[0] < _MIN_FRAMES, "begins", "before"),
        (last, near[-1] >= len(sizes) - _MIN_FRAMES, "ends", "after"),
    ):
        if middle - outer < -TURN:
            return (
                f"the {structure} was largest at the edge of where it was seen, and its true plane may lie {side} "
                "that; sweep again across all of it"
            )
        if touches and middle - outer < TURN:
            return f"the sweep {end} on the {structure}, and its true plane may lie beyond; sweep across all of it"
    return None
