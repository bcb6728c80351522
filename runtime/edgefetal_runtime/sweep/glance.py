"""A frame seen from afar: how much of it is lit, and how much it differs from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_WIDTH_PX, _HEIGHT_PX = 48, 32
# Up to this grey level a pixel is black; the fan's own noise and compression stay below it.
_BLACK_LEVEL = 4
# Pictures that vary less, in squared grey levels, are too even for sums of squares; they are asked one by one.
_LEAST_SCATTER = 1e-6


@dataclass(frozen=True, eq=False)
class Glance:
    """A small copy of a frame.

    Args:
        small: mean grey levels, shape (32, 48), float32.
        lit: share of the frame's pixels that are not black, 0 to 1.
    """

    small: npt.NDArray[np.float32]
    lit: float

    def likeness(self, other: Glance) -> float:
        """Return the correlation with another frame over what either shows; 1 for the same, 0 where both are dark."""
        shown = (self.small > _BLACK_LEVEL) | (other.small > _BLACK_LEVEL)
        mine, theirs = self.small[shown], other.small[shown]
        if mine.size < 2 or not mine.std() or not theirs.std():  # noqa: PLR2004 - one value correlates with nothing
            return float(np.array_equal(self.small, other.small) and mine.size > 0)
        return float(np.corrcoef(mine, theirs)[0, 1])


def likenesses(glances: Sequence[Glance]) -> npt.NDArray[np.float64]:
    """Return `Glance.likeness` of every pair, shape (N, N), by a few products of matrices in place of N x N passes."""
    if not glances:
        return np.empty((0, 0))
    small = np.stack([one.small.ravel() for one in glances]).astype(np.float64)
    dark = (small <= _BLACK_LEVEL).astype(np.float64)
    in_dark = small * dark
    # Sums over what either shows are those over all pixels, less those over what is dark in both.
    count = small.shape[1] - dark @ dark.T
    total = small.sum(axis=1)[:, None] - in_dark @ dark.T
    squares = (small**2).sum(axis=1)[:, None] - (small * in_dark) @ dark.T
    products = small @ small.T - in_dark @ in_dark.T
    scatter = np.maximum(squares * count - total**2, 0.0)
    plain = (count >= 2) & (np.minimum(scatter, scatter.T) > _LEAST_SCATTER * count**2)  # noqa: PLR2004 - one value correlates with nothing
    scale = np.sqrt(np.where(plain, scatter * scatter.T, 1.0))
    alike = (products * count - total * total.T) / scale
    for first, second in np.argwhere(~plain):
        alike[first, second] = glances[first].likeness(glances[second])
    return np.asarray(alike)


def glance(pixels: npt.NDArray[np.uint8]) -> Glance:
    """Look at a frame, shape (H, W)."""
    # Every second pixel both ways is enough for 48 x 32 and costs a quarter.
    rows, columns = (
        2 if side >= 4 * least else 1 for side, least in zip(pixels.shape, (_HEIGHT_PX, _WIDTH_PX), strict=True)
    )
    thinned = np.ascontiguousarray(pixels[::rows, ::columns])
    small = cv2.resize(thinned, (_WIDTH_PX, _HEIGHT_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Glance(small, float(np.count_nonzero(thinned > _BLACK_LEVEL)) / thinned.size)
