"""The field of view: where in the network's grid the picture shows anything at all.

A structure that the edge of the fan cuts has a contour along that edge which is none of its own. Those points are left
out of every fit, so the field has to be known before a contour is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.preprocess import Letterbox, PreprocessSpec

# Up to this grey level a pixel is black: compression leaves a level or two of noise beside the fan.
BLACK_LEVEL = 4
# A contour point nearer to the edge than this is not to be told from it: resampling blurs the edge by a pixel, and the
# network rounds a head off before it. Of 85 validation pictures of HC18 with 40 % of the head blacked out, 2 pass with
# a margin of 4 and 11 with one of 2; on whole pictures it changes nothing.
EDGE_PX = 4
# A fan covers a good part of any picture; a lit part smaller than this is a text or a logo on a black screen.
_MIN_FIELD_SHARE = 0.05


def picture_field(box: Letterbox, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mark the whole picture in a network grid of shape (h, w): the field of view where the fan is not known."""
    field = np.zeros(shape, dtype=bool)
    field[box.top_px : box.top_px + box.content_height_px, box.left_px : box.left_px + box.content_width_px] = True
    return field


def fan_field(image: npt.NDArray[np.float32], spec: PreprocessSpec, box: Letterbox) -> npt.NDArray[np.bool_]:
    """Find the fan in a prepared frame: the convex hull of its largest lit part.

    A curvilinear fan is convex but for the arc under the probe, where no fetus is. Colour bars, rulers and texts beside
    it are parts of their own. Tissue that returns nothing at all at the very edge of the fan is taken for outside,
    which costs contour points and never adds any.

    Args:
        image: the prepared frame, shape (h, w), as `preprocess` normalises it.
        spec: how it was prepared.
        box: placement of the frame in it.

    Returns:
        Shape (h, w); the whole picture where nothing is lit.
    """
    black = (BLACK_LEVEL / 255 - spec.mean) / spec.std
    lit = cv2.morphologyEx((image > black).view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    whole = picture_field(box, (image.shape[0], image.shape[1]))
    # Outlines only: labelling every pixel takes several times as long.
    parts, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(parts, key=cv2.contourArea, default=None)
    if largest is None or cv2.contourArea(largest) < _MIN_FIELD_SHARE * np.count_nonzero(whole):
        return whole
    hull = cv2.fillConvexPoly(np.zeros(image.shape, np.uint8), cv2.convexHull(largest), (1,))
    return np.asarray(hull, dtype=bool) & whole


def inner_field(field: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Take `EDGE_PX` off a field's edge, shape (h, w); the border of the grid counts as an edge."""
    size = 2 * EDGE_PX + 1
    kernel = np.ones((size, size), np.uint8)
    eroded = cv2.erode(field.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(eroded, dtype=bool)


def points_in_field(points: npt.NDArray[np.float64], field: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell which points, shape (N, 2) as x, y in network pixels, lie in a field."""
    columns, rows = np.rint(points.T).astype(np.intp)
    within = (rows >= 0) & (rows < field.shape[0]) & (columns >= 0) & (columns < field.shape[1])
    return np.asarray(within & field.take(rows * field.shape[1] + columns, mode="clip"))
