"""Pictures of which an edge hides a part of the head, as the edge of a fan does; what is hidden is known exactly."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.biometry.ellipse import Ellipse

# Beyond 1 the line passes beside the head.
_BESIDE = 10.0


def visible(
    head: Ellipse,
    columns: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    hidden_share: float,
    direction_rad: float,
) -> npt.NDArray[np.bool_]:
    """Mark what is left of a picture when a straight edge across a direction hides a share of the head's area.

    Args:
        head: the head.
        columns: x of the points, in the unit of `head`.
        rows: y of the points, of a shape that broadcasts with that of `columns`.
        hidden_share: share of the head's area beyond the edge, 0 to 1.
        direction_rad: from the head's centre to the edge, from x towards y.
    """
    # Of an ellipse as of a circle, a line at t of the half extent cuts off (acos t - t sqrt(1 - t2)) / pi of the area.
    t = np.linspace(-1, 1, 2001)
    beyond = (np.arccos(t) - t * np.sqrt(1 - t * t)) / math.pi
    at = float(np.interp(-hidden_share, -beyond, t)) if hidden_share else _BESIDE
    along = (columns - head.center_x) * math.cos(direction_rad) + (rows - head.center_y) * math.sin(direction_rad)
    return np.asarray(along < at * head.diameter(direction_rad) / 2)


def cut_picture(
    pixels: npt.NDArray[np.uint8], head_px: Ellipse, hidden_share: float, name: str
) -> npt.NDArray[np.uint8]:
    """Black out a picture, shape (H, W), beyond an edge that hides a share of the head, in a direction by its name."""
    direction_rad = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 * 2 * math.pi
    columns = np.arange(pixels.shape[1], dtype=float)
    rows = np.arange(pixels.shape[0], dtype=float)[:, None]
    return np.where(visible(head_px, columns, rows, hidden_share, direction_rad), pixels, np.uint8(0))
