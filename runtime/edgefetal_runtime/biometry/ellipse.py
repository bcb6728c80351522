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
# More would let the core grow back over the arc that it leaves out.
_REFITS = 3
# Points farther than this many robust standard deviations from the ellipse are left out of the next fit ...
_OUTLIER_SIGMAS = 3.0
_MAD_TO_SIGMA = 1.4826
# ... but none nearer than this share of the outline's half extent: real heads are no ellipses, and the parts of one
# that stray a little count as much as the others. On validation pictures of HC18 leaving them out costs accuracy.
SHAPE_TOLERANCE = 0.1
_PRECISION = 1e-9
# An outline that strays less than this from its ellipse (root mean square, share of its half extent) has no arc that
# could contradict the rest.
_SMOOTH = 0.015
# Arcs of 30 degrees, of which three neighbours are left out at a time.
_ARCS = 12
_LEFT_OUT_ARCS = 3
_CANDIDATE_POINTS = 128
# From the factors of x2, xy, y2, x, y, 1 to those of x, y, 1 in the derivatives by x (2a, b, d) and by y (b, 2c, e).
_DERIVATIVES = np.zeros((6, 6))
_DERIVATIVES[[0, 1, 3, 1, 2, 4], [0, 1, 2, 3, 4, 5]] = 2, 1, 1, 1, 2, 1


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

    def diameter(self, direction_rad: float) -> float:
        """Extent between the tangents at right angles to a direction (from x towards y), in the unit of the axes."""
        t = direction_rad - self.angle_rad
        return 2 * math.hypot(self.semi_major * math.cos(t), self.semi_minor * math.sin(t))

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

    The direct method of Fitzgibbon, Pilu and Fisher (1999) in the numerically stable form of Halir and Flusser (1998).
    """
    frame = _fit_frame(points)
    if frame is None:
        return None
    design = _design(frame.to_unit(points))
    return _ellipse_of_conic(_conics((design @ design.T)[None])[0], frame)


@dataclass(frozen=True, eq=False)
class RobustFit:
    """An ellipse fitted to an outline of which a part may be wrong.

    Args:
        ellipse: fitted to all points but those that are far out.
        core: fitted only to the points that agree best with one another, half of them or more. Where it differs much
            from `ellipse`, the outline is of two minds.
    """

    ellipse: Ellipse
    core: Ellipse

    def disagreement(self) -> float:
        """Relative difference of the perimeters of the core and of the ellipse."""
        return abs(self.core.circumference() / self.ellipse.circumference() - 1)


def robust_ellipse_from_points(points: npt.NDArray[np.float64]) -> RobustFit | None:
    """Fit an ellipse to an outline of which an arc may be wrong.

    A bump on an outline is one wide arc, to which a fit through all points yields, so that its points do not stand out
    afterwards. So a rough outline is also fitted without each of its 90-degree arcs in turn, and the candidate with the
    least median distance (Rousseeuw 1984) leads to the `core`, which does not yield. Each point is weighted by the
    inverse gradient of the conic (Sampson 1982), which takes away most of the direct method's pull towards small
    ellipses on incomplete outlines.

    Args:
        points: shape (N, 2).

    Returns:
        The fit, or None where no proper ellipse fits.
    """
    frame = _fit_frame(points)
    if frame is None:
        return None
    design = _design(frame.to_unit(points))
    whole, square_distances = _refined(design, _conics((design @ design.T)[None]), SHAPE_TOLERANCE)
    ellipse = core = _ellipse_of_conic(whole[0], frame)
    if ellipse is not None and square_distances[0].mean() > _SMOOTH**2:
        agreed, _ = _refined(design, _least_median(design), _PRECISION)
        core = _ellipse_of_conic(agreed[0], frame)
    return None if ellipse is None or core is None else RobustFit(ellipse, core)


def _refined(
    design: npt.NDArray[np.float64], conics: npt.NDArray[np.float64], least: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fit again to the points that are no farther from a conic than the spread of most, or than `least`, a few times.

    Args:
        design: monomials of the points, shape (6, N).
        conics: where the fit stands, shape (1, 6).
        least: distance within which every point is kept.

    Returns:
        The new conic, shape (1, 6), NaN where too few points were kept, and the squares of the points' distances to it
        or to the one before.
    """
    kept = None
    for _ in range(_REFITS):
        square_distances, gradients = _square_distances(design, conics)
        spread = (_OUTLIER_SIGMAS * _MAD_TO_SIGMA) ** 2 * _middle(square_distances)
        before, kept = kept, square_distances <= max(spread.item(), least**2)
        if before is not None and (kept == before).all():
            break
        conics = _conics((kept / gradients)[:, None, :] * design @ design.T)
        if np.count_nonzero(kept) < MIN_FIT_POINTS:
            conics = np.full_like(conics, np.nan)
    return conics, square_distances


@dataclass(frozen=True, eq=False)
class _FitFrame:
    """Coordinates in which points have their mean at 0 and extend to 1: conics lose precision far from there."""

    centre: npt.NDArray[np.float64]
    spread: float

    def to_unit(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Move points, shape (N, 2), into the frame."""
        return (points - self.centre) / self.spread


def _fit_frame(points: npt.NDArray[np.float64]) -> _FitFrame | None:
    """Return the frame for a fit, or None where there are too few points or they are not finite or all the same."""
    if len(points) < MIN_FIT_POINTS or not np.isfinite(points).all():
        return None
    centre = points.mean(axis=0)
    spread = float(np.abs(points - centre).max())
    return _FitFrame(centre, spread) if spread > 0 else None


def _design(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Monomials x2, xy, y2, x, y, 1 of points, shape (N, 2), as (6, N)."""
    x, y = points.T
    return np.stack((x * x, x * y, y * y, x, y, np.ones_like(x)))


def _middle(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Upper median of each row, NaN last: enough here, and `np.median` takes five times as long."""
    half = values.shape[1] // 2
    return np.partition(values, half, axis=1)[:, half]


def _conics(scatter: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Solve the direct ellipse fit for scatter matrices, (K, 6, 6), to conics, (K, 6); NaN where none fits."""
    conics = np.full(scatter.shape[:2], np.nan)
    if not np.isfinite(scatter).all():
        return conics
    mixed = scatter[:, :3, 3:]
    try:
        to_linear = -np.linalg.inv(scatter[:, 3:, 3:]) @ mixed.transpose(0, 2, 1)
    except np.linalg.LinAlgError:
        return conics
    reduced = (scatter[:, :3, :3] + mixed @ to_linear).reshape(-1, 9).tolist()
    conics[:, :3] = [_quadratic_part(*matrix) for matrix in reduced]
    conics[:, 3:] = (to_linear @ conics[:, :3, None])[..., 0]
    return conics


_NO_CONIC = (math.nan, math.nan, math.nan)


def _quadratic_part(
    s11: float, s12: float, s13: float, _: float, s22: float, s23: float, __: float, ___: float, s33: float
) -> tuple[float, float, float]:
    """Find v = (a, b, c) with S v = k C v and 4ac - b2 > 0, for a symmetric matrix S; NaN where there are none.

    C is the matrix of the form 4ac - b2. It is positive for the one eigenvector whose k is positive: the largest root
    of the characteristic cubic. In closed form, because a general eigensolver takes twenty times as long for a 3 x 3.
    """
    # det(S - k C) = -4 (k3 + p k2 + q k + r)
    p = s22 - s13
    q = (s13 * s13 + 4 * s12 * s23 - s11 * s33) / 4 - s13 * s22
    r = -(s11 * (s22 * s33 - s23 * s23) - s12 * (s12 * s33 - s23 * s13) + s13 * (s12 * s23 - s22 * s13)) / 4
    reach = math.sqrt(max(p * p / 9 - q / 3, 0.0))
    cube = reach * reach * reach
    if not cube > 0:
        return _NO_CONIC
    cosine = (p * q / 6 - r / 2 - p * p * p / 27) / cube
    k = 2 * reach * math.cos(math.acos(min(max(cosine, -1.0), 1.0)) / 3) - p / 3
    # The adjugate of S - k C is a multiple of v v', so the sum of its outer columns is one of (a + c) v; as a and c
    # have the same sign, nothing cancels.
    s22, s13 = s22 + k, s13 - 2 * k
    adjugate13 = s12 * s23 - s13 * s22
    a = s22 * s33 - s23 * s23 + adjugate13
    b = s13 * s23 - s12 * s33 + s12 * s13 - s11 * s23
    c = adjugate13 + s11 * s22 - s12 * s12
    size = math.hypot(a, b, c)
    if not (size > 0 and 4 * (a / size) * (c / size) > (b / size) ** 2):
        return _NO_CONIC
    return a / size, b / size, c / size


def _square_distances(
    design: npt.NDArray[np.float64], conics: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Squares of the first-order distances of points, monomials (6, N), to conics, (K, 6), and of the gradients."""
    slopes = (conics @ _DERIVATIVES).reshape(-1, 2, 3) @ design[3:]
    gradients = np.maximum(np.square(slopes[:, 0]) + np.square(slopes[:, 1]), np.finfo(float).tiny)
    return np.square(conics @ design) / gradients, gradients


def _least_median(design: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Conic, (1, 6), of the least median distance among the fit to all points and those that leave one arc out each."""
    # Neighbours on a contour share their error, so that some of them say as much as all.
    design = design[:, :: max(1, design.shape[1] // _CANDIDATE_POINTS)]
    turn = (np.arctan2(design[4], design[3]) / (2 * np.pi) + 0.5) * _ARCS
    arc = np.minimum(turn.astype(np.intp), _ARCS - 1)
    left_out = (arc - np.arange(_ARCS)[:, None]) % _ARCS < _LEFT_OUT_ARCS
    used = np.concatenate((np.ones((1, design.shape[1])), ~left_out))
    conics = _conics((used[:, None, :] * design) @ design.T)
    medians = _middle(_square_distances(design, conics)[0])
    return conics[[int(np.argmin(np.where(np.isfinite(medians), medians, np.inf)))]]


def _ellipse_of_conic(conic: npt.NDArray[np.float64], frame: _FitFrame) -> Ellipse | None:
    """Convert a conic in a fit's frame to an ellipse outside it, or None where it is none."""
    a, b, c, d, e, f = conic.tolist()
    discriminant = 4 * a * c - b * b
    if not discriminant > 0:
        return None
    x, y = (b * e - 2 * c * d) / discriminant, (b * d - 2 * a * e) / discriminant
    level = a * x * x + b * x * y + c * y * y + d * x + e * y + f
    middle, reach = (a + c) / 2, math.hypot((a - c) / 2, b / 2)
    # The axes are along the eigenvectors of the quadratic form, the longer one along that of the smaller eigenvalue.
    if middle < 0:
        middle, level, a, b, c = -middle, -level, -a, -b, -c
    if not (level < 0 and middle - reach > 0):
        return None
    angle_rad = math.atan2(b, a - c) / 2 + math.pi / 2
    ellipse = Ellipse(
        center_x=float(x * frame.spread + frame.centre[0]),
        center_y=float(y * frame.spread + frame.centre[1]),
        semi_major=math.sqrt(-level / (middle - reach)) * frame.spread,
        semi_minor=math.sqrt(-level / (middle + reach)) * frame.spread,
        angle_rad=angle_rad % math.pi,
    )
    return ellipse if ellipse.semi_minor > 0 and all(map(math.isfinite, vars(ellipse).values())) else None


def contour_points(logits: npt.NDArray[np.floating], region: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Points where the logits cross zero along the outer edge of a region, to a fraction of a pixel.

    The crossing between two neighbouring pixels of opposite sign is found by linear interpolation. Where the region
    touches the border of the array there is no outer neighbour, so a structure cut by the border yields points on its
    true edge only.

    Args:
        logits: shape (H, W).
        region: the structure, shape (H, W), 0 or 1, its holes filled.

    Returns:
        Points, shape (N, 2) as x, y; pixel centres are whole numbers.
    """
    left, top, width, height = cv2.boundingRect(region)
    rows_seen = slice(max(0, top - 1), top + height + 1)
    columns_seen = slice(max(0, left - 1), left + width + 1)
    values = np.ascontiguousarray(logits[rows_seen, columns_seen])
    inside = region[rows_seen, columns_seen]
    across = _crossings(inside[:, :-1] != inside[:, 1:], values, axis=0)
    down = _crossings(inside[:-1] != inside[1:], values, axis=1)
    return np.add(np.concatenate((across, down)), (columns_seen.start, rows_seen.start))


def _crossings(changes: npt.NDArray[np.bool_], values: npt.NDArray[np.floating], axis: int) -> npt.NDArray[np.float64]:
    """Where values, shape (H, W), are 0 between marked pixels and their next along an axis, 0 for x: (N, 2) as x, y."""
    # On flat arrays, because a search and a look-up in two axes take several times as long.
    rows, columns = np.divmod(np.flatnonzero(changes), changes.shape[1])
    width = values.shape[1]
    first = rows * width + columns
    before, after = (values.take(first + step).astype(np.float64) for step in (0, (1, width)[axis]))
    points = np.stack((columns, rows), axis=1).astype(np.float64)
    points[:, axis] += np.clip(before / np.where(before == after, 1.0, before - after), 0.0, 1.0)
    return points
