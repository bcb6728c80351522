"""The one region of a probability map that is the structure, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.measurement import Abstained

if TYPE_CHECKING:
    import numpy.typing as npt

# Smaller than this share of the network input, an outline is a speck: HC18's smallest head covers 3 %, and a femur of
# 15 mm across a picture of 150 mm about 0.2 %.
MIN_AREA_FRACTION = 0.001
# A second region of at least this share of the largest one's area is a second structure, and not a speck beside it.
MAX_SECOND_SHARE = 0.5
# What OpenCV computes with; the network answers in the first.
_DTYPES = (np.float32, np.float64)


def only_region(logits: npt.NDArray[np.floating], name: str) -> npt.NDArray[np.uint8] | Abstained:
    """Largest region of positive logits with its holes filled, shape (H, W), uint8 0 or 1.

    Args:
        logits: shape (H, W).
        name: the structure, for the reason.

    Returns:
        The region, or why there is none: the map is not one of finite logits, marks nothing, or marks two structures.
    """
    if logits.ndim != 2 or not logits.size or logits.dtype not in _DTYPES or not np.isfinite(logits).all():  # noqa: PLR2004 - a map has two axes
        return Abstained("the network's answer is not a map of finite numbers; verify the bundle")
    contours, _ = cv2.findContours((logits > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = np.array([cv2.contourArea(contour) for contour in contours])
    if not len(areas) or areas.max() < MIN_AREA_FRACTION * logits.size:
        return Abstained(f"no {name} is outlined")
    if len(areas) > 1 and np.partition(areas, -2)[-2] >= MAX_SECOND_SHARE * areas.max():
        return Abstained(f"more than one {name} is outlined; show one alone")
    region = np.zeros(logits.shape, np.uint8)
    return np.asarray(cv2.drawContours(region, contours, int(areas.argmax()), (1,), thickness=cv2.FILLED), np.uint8)
