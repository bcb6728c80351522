"""What whole programs of others share: OpenCV's ellipse, and the largest outline as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from edgefetal_runtime.frame import Frame

# Points that an ellipse goes through.
_LEAST_POINTS: Final = 5


def fit_largest(mask: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Fit OpenCV's ellipse to the largest region of a mask, shape (H, W).

    Returns:
        The region's area and the ellipse's circumference, both in pixels, or None where nothing can be fitted.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour: Any = max(contours, key=cv2.contourArea, default=())
    if len(contour) < _LEAST_POINTS:
        return None
    _, (width, height), _ = cv2.fitEllipse(contour)
    return cv2.contourArea(contour), circumference(width / 2, height / 2)


def circumference(a: float, b: float) -> float:
    """Return the circumference of an ellipse with these semi-axes."""
    return Ellipse(0.0, 0.0, a, b, 0.0).circumference()


def largest(found: Iterable[tuple[float, float]]) -> float | None:
    """Choose as the published baseline does: the frame with the largest outline.

    Args:
        found: area, and circumference in any unit, of every frame that shows anything.

    Returns:
        That circumference, or None where no frame shows anything.
    """
    return max(found, default=(0.0, None))[1]


def mm_per_px(frame: Frame) -> float:
    """Return the size of a picture's pixels; the pictures and recordings that peers get all have one."""
    assert isinstance(frame.scale, Scale)  # noqa: S101 - said above
    return frame.scale.x_mm_per_px
