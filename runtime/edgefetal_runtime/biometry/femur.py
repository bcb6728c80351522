"""The femur's shaft in one frame, and its length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.field import inner_field, picture_field, points_in_field
from edgefetal_runtime.biometry.interval import measurements
from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
from edgefetal_runtime.biometry.quantities import FL
from edgefetal_runtime.biometry.region import only_region
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgefetal_runtime.infer.bundle import Intervals
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import NoScale

# A shaft is at least this many times longer than wide; the ossified one of 14 weeks is about 13 by 3 mm.
MIN_LENGTH_RATIO = 2.5
# The centre line of a true shaft stays near the line between its ends; one that bows more is two bones, or a rib.
MAX_BOW = 0.12
_STEP_PX = 0.25
_MIN_SECTIONS = 6


@dataclass(frozen=True, eq=False)
class Shaft:
    """The ossified shaft of a femur in a frame.

    Args:
        ends_px: the two ends of its centre line in frame pixels, shape (2, 2) as x, y.
        length: straight distance between them, in mm where `scale` is one, else in px.
        width: mean width, in the same unit.
        scale: pixel size of the frame, or why it is unknown.
    """

    ends_px: npt.NDArray[np.float64]
    length: float
    width: float
    scale: Scale | NoScale

    @property
    def contour_px(self) -> npt.NDArray[np.float64]:
        """Points to draw, in frame pixels."""
        return self.ends_px

    @property
    def extent(self) -> float:
        """Size of the structure: its length, in mm where `scale` is one, else in px."""
        return self.length


def find_shaft(
    mask_logits: npt.NDArray[np.float32],
    box: Letterbox,
    scale: Scale | NoScale,
    field: npt.NDArray[np.bool_] | None = None,
) -> Shaft | Abstained:
    """Find the femur's shaft in its channel of the network's mask.

    The centre line, a parabola through the middles of the cross-sections, is followed outwards to where the logits
    cross zero. Its ends are the middles of the bone's ends, as calipers are set (ISUOG 2019). The long side of the
    rectangle around the mask would add what an oblique or flared end sticks out, and the end of a thinned skeleton lies
    half a width inside the bone.

    Args:
        mask_logits: the femur's channel of the network's `mask` output, shape (h, w), float32.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or why it is unknown.
        field: field of view in the network's grid, shape (h, w), or None for the whole picture.
    """
    region = only_region(mask_logits, "femur")
    if isinstance(region, Abstained):
        return region
    field = picture_field(box, (mask_logits.shape[0], mask_logits.shape[1])) if field is None else field
    unit_per_px = np.array((scale.x_mm_per_px, scale.y_mm_per_px) if isinstance(scale, Scale) else (1.0, 1.0))
    rows, columns = np.nonzero(region)
    pixels = box.to_frame(np.stack((columns, rows), axis=1).astype(np.float64)) * unit_per_px
    # Side of a network pixel in the unit of the fit; of pixels that are not square, of the square of their area.
    side = math.sqrt(box.x.step * unit_per_px[0] * box.y.step * unit_per_px[1])
    line = _centre_line(pixels, side)
    if line is None:
        return Abstained("the outline is too short for a femur; find a clearer plane")
    width = len(pixels) * side**2 / line.span
    along = np.arange(-width, line.span + width, _STEP_PX * side)
    path = box.to_network(line.at(along + line.start) / unit_per_px)
    ends = _crossings(mask_logits, path)
    if ends is None:
        return Abstained("an end of the femur is outside the picture; show both ends")
    if not points_in_field(ends, inner_field(field)).all():
        return Abstained("an end of the femur is at the edge of the picture; show both ends")
    ends_px = box.to_frame(ends)
    length = float(np.linalg.norm((ends_px[1] - ends_px[0]) * unit_per_px))
    return _plausible(Shaft(ends_px, length, width, scale), line.bow())


def _plausible(shaft: Shaft, bow: float) -> Shaft | Abstained:
    """Pass on the shaft, or say why it cannot be that of a femur."""
    ratio = shaft.length / shaft.width
    if ratio < MIN_LENGTH_RATIO:
        return Abstained(
            f"the outline is only {ratio:.1f} times as long as it is wide, {MIN_LENGTH_RATIO:g} is the least for a "
            "femur; find a clearer plane"
        )
    if bow > MAX_BOW * shaft.length:
        return Abstained("the outline bends more than a femur does; find a clearer plane")
    return shaft


def measure_femur(
    shaft: Shaft, intervals: Intervals | None = None, effective_frames: float = 1.0
) -> Mapping[Quantity, Measured | Abstained]:
    """Measure a femur.

    Args:
        shaft: of the femur.
        intervals: the bundle's tables, or None where it has none.
        effective_frames: number of independent frames that the values are worth.
    """
    return measurements({FL: shaft.length}, {}, shaft.scale, intervals, effective_frames)


@dataclass(frozen=True, eq=False)
class _CentreLine:
    """A parabola along the long axis of a region: across = polynomial(along)."""

    middle: npt.NDArray[np.float64]
    axis: npt.NDArray[np.float64]
    polynomial: npt.NDArray[np.float64]
    start: float
    span: float

    def at(self, along: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Points at distances along the axis, shape (N, 2)."""
        across = np.polyval(self.polynomial, along)
        normal = np.array((-self.axis[1], self.axis[0]))
        return np.asarray(self.middle + along[:, None] * self.axis + across[:, None] * normal)

    def bow(self) -> float:
        """Largest distance of the line from the straight one between its ends: that of a parabola at its middle."""
        return abs(float(self.polynomial[0])) * self.span**2 / 4


def _centre_line(pixels: npt.NDArray[np.float64], side: float) -> _CentreLine | None:
    """Fit the middles of a region's cross-sections; None where there are too few of them.

    Args:
        pixels: the region's pixels, shape (N, 2).
        side: side of a pixel in the same unit; sections are as thick.
    """
    middle = pixels.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((pixels - middle).T))
    axis = vectors[:, 1]
    along = (pixels - middle) @ axis
    across = (pixels - middle) @ np.array((-axis[1], axis[0]))
    start, span = float(along.min()), float(np.ptp(along))
    if span <= 0:
        return None
    sections = max(1, round(span / side))
    index = np.minimum(((along - start) / span * sections).astype(np.intp), sections - 1)
    counts = np.bincount(index, minlength=sections)
    # Sections near the ends are cut obliquely, and their middles lie off the line.
    width = len(pixels) / sections
    margin = min(round(width / 2), sections // 4)
    used = np.flatnonzero(counts)
    used = used[(used >= margin) & (used < sections - margin)]
    if len(used) < _MIN_SECTIONS:
        return None
    sums_across, sums_along = (np.bincount(index, v, sections)[used] / counts[used] for v in (across, along))
    return _CentreLine(middle, axis, np.polyfit(sums_along, sums_across, 2), start, span)


def _crossings(logits: npt.NDArray[np.float32], path: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """First and last zero crossing of the logits along a path, shape (2, 2), or None where one lies off the grid."""
    height, width = logits.shape
    inside = (path >= 0).all(axis=1) & (path[:, 0] <= width - 1) & (path[:, 1] <= height - 1)
    values = cv2.remap(
        logits,
        path[None, :, 0].astype(np.float32),
        path[None, :, 1].astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )[0].astype(np.float64)
    positive = np.flatnonzero(values > 0)
    if not len(positive):
        return None
    ends = []
    for last, beyond in ((positive[0], positive[0] - 1), (positive[-1], positive[-1] + 1)):
        if not 0 <= beyond < len(path) or not inside[beyond]:
            return None
        share = values[last] / (values[last] - values[beyond])
        ends.append(path[last] + share * (path[beyond] - path[last]))
    return np.array(ends)
