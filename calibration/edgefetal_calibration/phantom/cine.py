"""A recorded sweep in memory: what is between simulation, capture and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_STACK = 3


@dataclass(frozen=True, eq=False)
class Cine:
    """Frames with their rate and the size of their pixels.

    Args:
        frames: shape (N, H, W), uint8.
        frames_per_s: frame rate.
        x_mm_per_px: width of a pixel.
        y_mm_per_px: height of a pixel.

    Raises:
        InputError: there is no frame, or a figure is not above zero.
    """

    frames: npt.NDArray[np.uint8]
    frames_per_s: float
    x_mm_per_px: float
    y_mm_per_px: float

    def __post_init__(self) -> None:
        """Refuse what is no recording."""
        if self.frames.ndim != _STACK or self.frames.size == 0:
            raise InputError(f"Frames of shape {self.frames.shape} are no recording; give at least one, (N, H, W).")
        if self.frames.dtype.name != "uint8":
            raise InputError(f"Frames of type {self.frames.dtype} are not written; give uint8.")
        if not min(self.frames_per_s, self.x_mm_per_px, self.y_mm_per_px) > 0:
            raise InputError(
                f"{self.frames_per_s:g} frames a second of pixels of {self.x_mm_per_px:g} x {self.y_mm_per_px:g} mm "
                "cannot be; give figures above zero."
            )
