"""A frame seen from afar: how much of it is lit, and how much it differs from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_WIDTH_PX, _HEIGHT_PX = 48, 32
# Up to this grey level a pixel is black; the fan's own noise and compression stay below it.
_BLACK_LEVEL = 4


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


def glance(pixels: npt.NDArray[np.uint8]) -> Glance:
    """Look at a frame, shape (H, W)."""
    # Every second pixel both ways is enough for 48 x 32 and costs a quarter.
    rows, columns = (
        2 if side >= 4 * least else 1 for side, least in zip(pixels.shape, (_HEIGHT_PX, _WIDTH_PX), strict=True)
    )
    thinned = np.ascontiguousarray(pixels[::rows, ::columns])
    small = cv2.resize(thinned, (_WIDTH_PX, _HEIGHT_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Glance(small, float(np.count_nonzero(thinned > _BLACK_LEVEL)) / thinned.size)
