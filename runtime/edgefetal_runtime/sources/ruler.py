"""Depth rulers: equally spaced short bright marks along one edge of a picture.

A ruler is one evidence of the scale and never enough: its marks do not say how many millimetres lie between them
(`scale_evidence` joins it with another). Text, logos and speckle must not pass for one, so a picture whose marks are
few, uneven, crowded, or open to two readings has no ruler.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# Marks: thin, short, and drawn to be seen. Those over bright tissue need the higher contrast to stand out.
_MAX_THICKNESS_PX = 5
_TOP_HAT_PX = 9
_MAX_LENGTH_SHARE = 0.04
_CONTRASTS = (40, 100)
_MIN_AREA_PX = 2
_MIN_FILL = 0.7
# Nothing else may stand this close to a mark: letters stand closer.
_GAP_PX = 4
# Fewer marks, or marks over less of the picture, line up by chance.
MIN_MARKS = 6
_MIN_SPAN_SHARE = 0.25
_MIN_PERIOD_PX = 8.0
# Marks are drawn on whole rows, so that one lies up to half a pixel off, and its middle another half where heights
# differ.
_MAX_RESIDUAL_PX = 1.0
_MAX_RESIDUAL_SHARE = 0.06
_ROUNDING_SD_PX = 0.29  # uniform over one pixel: 1 / sqrt(12)
_MIN_PRESENT = 0.75
_MAX_RELATIVE_SE = 0.003
# Long marks among short ones repeat every second, fifth or tenth.
_MAX_MULTIPLE = 10
_SAME = 0.005
_LONGER = 1.3


@dataclass(frozen=True)
class Ruler:
    """A ruler that was read.

    Args:
        axis: `y` where the marks follow one another down the picture, `x` where across.
        period_px: distance between marks.
        period_se_px: its standard error.
        first_px: place of the first mark along the axis.
        marks: number of marks seen.
        intervals: number of periods from the first mark to the last, seen or not.
        long_every: how many marks on a longer one follows, or None where all are alike or the long ones are uneven.
        strip_px: columns (rows for `x`) that hold the marks, first and after the last.
    """

    axis: str
    period_px: float
    period_se_px: float
    first_px: float
    marks: int
    intervals: int
    long_every: int | None
    strip_px: tuple[int, int]

    def strip(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return the brightness along the ruler's strip of a picture, to compare with that of another."""
        begin, end = self.strip_px
        pixels = grey[:, begin:end] if self.axis == "y" else grey[begin:end].T
        return np.asarray(pixels.max(axis=1), np.float64)


@dataclass(frozen=True)
class NoRuler:
    """No ruler was read, because; falsy.

    Args:
        reason: what is wrong, in a few words.
    """

    reason: str

    def __bool__(self) -> Literal[False]:
        """Return False: there is no ruler here."""
        return False


@dataclass(frozen=True, eq=False)
class _Marks:
    """Boxes of lone thin bright things: first and after the last column, and middle row."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    middle: npt.NDArray[np.float64]


def read_ruler(grey: npt.NDArray[np.uint8], axis: str = "y") -> Ruler | NoRuler:
    """Read the ruler of a picture along one axis.

    Args:
        grey: picture, shape (H, W), uint8.
        axis: `y` for marks one below the other, `x` for marks side by side.
    """
    picture = np.ascontiguousarray(grey if axis == "y" else grey.T)
    thin = np.asarray(cv2.morphologyEx(picture, cv2.MORPH_TOPHAT, np.ones((_TOP_HAT_PX, 1), np.uint8)), np.uint8)
    found: list[Ruler] = []
    for contrast in _CONTRASTS:
        marks = _lone_marks(thin, contrast)
        for edge in (marks.left, marks.right):
            for place in np.flatnonzero(np.bincount(edge, minlength=1) >= 1):
                # A blurred edge may fall into the next column.
                aligned = (edge == place) | (edge == place + 1)
                if aligned.sum() >= MIN_MARKS:
                    ruler = _fit(marks, aligned, axis, picture.shape[0])
                    found += [ruler] if ruler else []
    if not found:
        return NoRuler("no row of equally spaced marks")
    least_px = min(ruler.period_px for ruler in found)
    finest = max(
        (ruler for ruler in found if ruler.period_px <= (1 + _SAME) * least_px),
        key=lambda ruler: (ruler.marks, ruler.long_every is not None),
    )
    for other in found:
        multiple = other.period_px / finest.period_px
        if not (round(multiple) <= _MAX_MULTIPLE and abs(multiple / round(multiple) - 1) <= _SAME):
            return NoRuler(f"marks {finest.period_px:.1f} and {other.period_px:.1f} px apart contradict one another")
    return finest


def _lone_marks(thin: npt.NDArray[np.uint8], contrast: int) -> _Marks:
    """Find short thin bright things with nothing near them."""
    mask = (thin >= contrast).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, width, height, area = (stats[1:, column].astype(np.int64) for column in range(5))
    rows, columns = thin.shape
    shaped = (height <= _MAX_THICKNESS_PX) & (width <= _MAX_LENGTH_SHARE * columns) & (height <= np.maximum(width, 2))
    shaped &= (area >= _MIN_AREA_PX) & (area >= _MIN_FILL * width * height)
    left, top, width, height, area = (values[shaped] for values in (left, top, width, height, area))
    sums = cv2.integral(mask)
    y0, y1 = np.maximum(top - _GAP_PX, 0), np.minimum(top + height + _GAP_PX, rows)
    x0, x1 = np.maximum(left - _GAP_PX, 0), np.minimum(left + width + _GAP_PX, columns)
    lone = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] == area
    left, top, width, height = (values[lone] for values in (left, top, width, height))
    middle = [
        float(np.average(np.arange(h), weights=thin[y : y + h, x : x + w].sum(axis=1, dtype=float)) + y)
        for x, y, w, h in zip(left, top, width, height, strict=True)
    ]
    return _Marks(left, left + width, np.array(middle))


def _fit(marks: _Marks, aligned: npt.NDArray[np.bool_], axis: str, length_px: int) -> Ruler | None:
    """Fit equal steps to marks that share an edge; None unless every one of them is a step."""
    by_place = np.argsort(marks.middle[aligned])
    places = marks.middle[aligned][by_place]
    steps = np.diff(places)
    # A missing mark makes one long step, so the usual step is that of the middle one.
    period = float(np.median(steps))
    if period < _MIN_PERIOD_PX:
        return None
    order = np.concatenate(([0.0], np.cumsum(np.round(steps / period))))
    if any(b <= a for a, b in pairwise(order)):
        return None
    period, first = (float(value) for value in np.polyfit(order, places, 1))
    residuals = places - (first + period * order)
    spread = float(np.sum((order - order.mean()) ** 2))
    sd = max(float(np.sqrt(np.sum(residuals**2) / (len(places) - 2))), _ROUNDING_SD_PX)
    intervals = round(order[-1])
    se = sd / spread**0.5
    if (
        np.abs(residuals).max() > min(_MAX_RESIDUAL_PX, _MAX_RESIDUAL_SHARE * period)
        or len(places) < _MIN_PRESENT * (intervals + 1)
        or places[-1] - places[0] < _MIN_SPAN_SHARE * length_px
        or se > _MAX_RELATIVE_SE * period
    ):
        return None
    strip = int(marks.left[aligned].min()), int(marks.right[aligned].max())
    lengths = (marks.right - marks.left)[aligned][by_place]
    return Ruler(axis, period, se, first, len(places), intervals, _long_every(order.astype(int), lengths), strip)


def _long_every(order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> int | None:
    """Return the step between the longer marks of a ruler, if it is one step throughout."""
    long = lengths >= _LONGER * lengths.min()
    if long.sum() < 2 or long.all():  # noqa: PLR2004 - two make a step
        return None
    step = int(np.gcd.reduce(np.diff(order[long])))
    in_step = (order - order[long][0]) % step == 0
    return step if step > 1 and bool((in_step == long).all()) else None
