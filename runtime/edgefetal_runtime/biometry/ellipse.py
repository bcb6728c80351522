"""Sub-pixel ellipse geometry: contour points of a probability map, a robust fit, a circumference.

Everything here is plain geometry in whatever unit the points have; pixels and millimetres are the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

MIN_FIT_POINTS = 12
_REFITS = 3
# Points farther than this many robust standard deviations from the ellipse are left out of the next fit.
_OUTLIER_SIGMAS = 3.0
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in the plane.

    Args:
        center_x: x of the centre.
        center_y: y of the centre.
        semi_major: longer semi-axis.
        semi_minor: shorter semi-axis.
        angle_rad: direction of the longer axis, from x towards y, in [0, pi).
    """

    center_x: float
    center_y: float
    semi_major: float
    semi_minor: float
    angle_rad: float

    def circumference(self) -> float:
        """Perimeter by Ramanujan's second approximation (1914), in the unit of the axes."""
        h = ((self.semi_major - self.semi_minor) / (self.semi_major + self.semi_minor)) ** 2
        return math.pi * (self.semi_major + self.semi_minor) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))

    def grown(self, distance: float) -> Ellipse:
        """Return the ellipse whose semi-axes are longer by `distance` (shorter where it is negative)."""
        return Ellipse(
            self.center_x, self.center_y, self.semi_major + distance, self.semi_minor + distance, self.angle_rad
        )

    def points(self, count: int) -> npt.NDArray[np.float64]:
        """Return `count` points on the ellipse, shape (count, 2), evenly spaced in the parameter."""
        t = np.linspace(0.0, 2.0 * math.pi, count, endpoint=False)
        along, across = self.semi_major * np.cos(t), self.semi_minor * np.sin(t)
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        return np.stack(
            (self.center_x + along * cos - across * sin, self.center_y + along * sin + across * cos), axis=1
        )

    def normalised(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Move points, x and y of shapes that broadcast, to u and v, where the ellipse is the unit circle."""
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        dx, dy = x - self.center_x, y - self.center_y
        return (dx * cos + dy * sin) / self.semi_major, (dy * cos - dx * sin) / self.semi_minor

    def signed_distance(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Approximate distance of points, shape (..., 2), to the ellipse: negative inside, positive outside.

        First order (Sampson): the implicit function over the length of its gradient. Exact on the ellipse, and good to
        a few per cent within a tenth of the semi-minor axis, which is where it is used.
        """
        u, v = self.normalised(points[..., 0], points[..., 1])
        radius = np.sqrt(u * u + v * v)
        gradient = np.sqrt((u / self.semi_major) ** 2 + (v / self.semi_minor) ** 2)
        # At the very centre the gradient vanishes; any clearly inside value will do there.
        return np.where(
            gradient > 0, (radius - 1.0) * radius / np.maximum(gradient, np.finfo(float).tiny), -self.semi_minor
        )


def ellipse_from_points(points: npt.NDArray[np.float64]) -> Ellipse | None:
    """Least-squares ellipse through points, shape (N, 2), or None where no proper ellipse fits them.

    The direct method of Fitzgibbon, Pilu and Fisher (1999), as OpenCV implements it.
    """
    if len(points) < MIN_FIT_POINTS or not np.isfinite(points).all():
        return None
    # The direct method loses precision far from the origin and at large scale: fit in a normalised frame.
    centre = points.mean(axis=0)
    spread = float(np.abs(points - centre).max())
    if spread == 0:
        return None
    try:
        (x, y), (axis_1, axis_2), angle_deg = cv2.fitEllipseDirect(((points - centre) / spread).astype(np.float32))
    except cv2.error:
        return None
    angle_rad = math.radians(angle_deg)
    if axis_2 > axis_1:
        axis_1, axis_2, angle_rad = axis_2, axis_1, angle_rad + math.pi / 2
    values = (x * spread + centre[0], y * spread + centre[1], axis_1 * spread / 2, axis_2 * spread / 2)
    if not all(math.isfinite(v) for v in values) or values[3] <= 0:
        return None
    return Ellipse(*values, angle_rad=angle_rad % math.pi)


def robust_ellipse_from_points(points: npt.NDArray[np.float64]) -> tuple[Ellipse, npt.NDArray[np.bool_]] | None:
    """Fit an ellipse, leave out the points far from it, and fit again, three times.

    Args:
        points: shape (N, 2).

    Returns:
        The ellipse and which points it was last fitted to, or None where no proper ellipse fits.
    """
    ellipse = ellipse_from_points(points)
    kept = np.ones(len(points), dtype=bool)
    for _ in range(_REFITS):
        if ellipse is None:
            return None
        distance = np.abs(ellipse.signed_distance(points))
        sigma = _MAD_TO_SIGMA * float(np.median(distance))
        closer = distance <= _OUTLIER_SIGMAS * max(sigma, 1e-9 * ellipse.semi_major)
        if (closer == kept).all():
            break
        kept = closer
        ellipse = ellipse_from_points(points[kept])
    return None if ellipse is None else (ellipse, kept)


def largest_region(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Largest 4-connected region of positive logits with its holes filled, shape (H, W), uint8 0 or 1."""
    positive = (logits > 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(positive, connectivity=4)
    if count <= 1:
        return np.zeros_like(positive)
    region = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(region, contours, -1, (1,), thickness=cv2.FILLED), np.uint8)


def contour_points(logits: npt.NDArray[np.floating], region: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Points where the logits cross zero along the outer edge of a region, to a fraction of a pixel.

    The crossing between two neighbouring pixels of opposite sign is found by linear interpolation. Where the region
    touches the border of the array there is no outer neighbour, so a structure cut by the border yields points on its
    true edge only.

    Args:
        logits: shape (H, W).
        region: the structure, shape (H, W), 0 or 1, as `largest_region` returns it.

    Returns:
        Points, shape (N, 2) as x, y; pixel centres are whole numbers.
    """
    values = np.asarray(logits, dtype=np.float64)
    inside = region.astype(bool)
    points = []
    for axis in (1, 0):
        first = [slice(None), slice(None)]
        second = [slice(None), slice(None)]
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(first), tuple(second)
        rows, columns = np.nonzero(inside[a] != inside[b])
        value_a, value_b = values[a][rows, columns], values[b][rows, columns]
        step = np.clip(value_a / np.where(value_a == value_b, 1.0, value_a - value_b), 0.0, 1.0)
        points.append(np.stack((columns + step * (axis == 1), rows + step * (axis == 0)), axis=1))
    return np.concatenate(points)
