"""Two evidences of one pixel size: the marks of rulers, and a figure from elsewhere.

Marks say how far apart they are in pixels, and not in millimetres; a figure from elsewhere may be for another depth.
Where one of the usual distances of marks makes the two agree within `MAX_DISAGREEMENT`, both are believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import ScaleError
from edgefetal_runtime.scale import CALIPER_RELATIVE_SD, MAX_DISAGREEMENT, NoScale, Scale
from edgefetal_runtime.sources.ruler import NoRuler, Ruler, read_ruler

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# Butterfly draws marks every 2 mm, SonoSite and GE every 5, others every 10, or every 1 where there is room. They are
# so far from one another that one figure never fits two of them.
PITCHES_MM = (1.0, 2.0, 5.0, 10.0)
# Longer marks stand at 5, 10 or 50 mm: where they follow every so many marks, not all distances are left.
_PITCHES_BY_LONG_MM = {2: (5.0,), 5: (1.0, 2.0, 10.0), 10: (1.0, 5.0)}
MIN_DEPTH_MM, MAX_DEPTH_MM = 10.0, 400.0
_TISSUE_LEVEL = 10
_TEXT_STROKE_PX = 5
_DARK_GAP_PX = 25
_AXIS_SHARE = 0.02
_SHARED_COLUMNS = 0.5


@dataclass(frozen=True)
class _Fit:
    pitch_mm: float
    mm_per_px: float
    disagreement: float

    def beside(self, ruler: Ruler) -> str:
        """Return the ruler with its distance of marks, in words for the exam record."""
        return f"the ruler ({self.pitch_mm:g} mm marks, {ruler.period_px:.2f} px apart)"


_ALONG = {"y": "down", "x": "across"}


def _best_fit(ruler: Ruler, mm_per_px: float) -> _Fit:
    """Return the usual distance of marks that comes nearest to a pixel size."""
    pitches = PITCHES_MM if ruler.long_every is None else _PITCHES_BY_LONG_MM.get(ruler.long_every, PITCHES_MM)
    fits = (_Fit(pitch, pitch / ruler.period_px, abs(pitch / ruler.period_px / mm_per_px - 1)) for pitch in pitches)
    return min(fits, key=lambda fit: fit.disagreement)


def scale_from_evidence(rulers: Sequence[Ruler], other: Scale) -> Scale | NoScale:
    """Confirm a pixel size by the rulers on the picture, or void it.

    Args:
        rulers: the rulers that were read, one for an axis at most; without any, `other` stands on its own.
        other: pixel size from elsewhere.

    Returns:
        `other` with all origins, the axis that no ruler confirms, and an uncertainty no smaller than the disagreement;
        or why there is none.
    """
    if not rulers:
        return other
    fits = []
    for ruler in rulers:
        along = other.y_mm_per_px if ruler.axis == "y" else other.x_mm_per_px
        fit = _best_fit(ruler, along)
        if fit.disagreement > MAX_DISAGREEMENT:
            return NoScale(
                f"the ruler {_ALONG[ruler.axis]} the picture (marks {ruler.period_px:.2f} px apart) and {other.origin} "
                f"({along:g} mm per px {_ALONG[ruler.axis]}) disagree by {fit.disagreement:.1%} or more, however far "
                "apart its marks may be; check the depth, and give the pixel size of this recording"
            )
        fits.append(fit)
    named = [(fit.beside(ruler), _ALONG[ruler.axis]) for fit, ruler in zip(fits, rulers, strict=True)]
    confirmed = (
        f"{named[0][1]} the picture only, by {named[0][0]}"
        if len(named) == 1
        else " and ".join(f"{axis} the picture by {ruler}" for ruler, axis in named)
    )
    errors = (ruler.period_se_px / ruler.period_px for ruler in rulers)
    return replace(
        other,
        origin=f"{other.origin}, confirmed {confirmed}",
        relative_uncertainty=max(other.relative_uncertainty, *(fit.disagreement for fit in fits), *errors),
    )


def image_depth_px(grey: npt.NDArray[np.uint8], ruler: Ruler) -> int | None:
    """Measure how far the image reaches down its middle, in rows; None where there is none.

    The image is the largest lit part of the picture beside the ruler and what stands over and under that (a dark head
    may cut an image in two); text and logos are left out by their thin strokes.
    """
    lit = (grey > _TISSUE_LEVEL).astype(np.uint8)
    lit[:, slice(*ruler.strip_px)] = 0
    opened = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((_TEXT_STROKE_PX, _TEXT_STROKE_PX), np.uint8))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((_DARK_GAP_PX, _DARK_GAP_PX), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=4)
    if count == 1:
        return None
    left, right = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH]
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    shared = np.minimum(right, right[largest]) - np.maximum(left, left[largest])
    image = shared >= _SHARED_COLUMNS * stats[largest, cv2.CC_STAT_WIDTH]
    image[0] = False  # what is not lit
    middle = (int(left[image].min()) + int(right[image].max())) // 2
    half = max(1, round(_AXIS_SHARE * int(stats[largest, cv2.CC_STAT_WIDTH])))
    rows = np.flatnonzero(image[labels[:, middle - half : middle + half + 1]].any(axis=1))
    return int(rows[-1] - rows[0] + 1) if len(rows) else None


def scale_from_depth(grey: npt.NDArray[np.uint8], depth_mm: float) -> tuple[Scale | NoScale, Ruler | None]:
    """Find the pixel size from the depth that the machine shows and the ruler on the picture.

    Two evidences: depth over the image's height, and the ruler's marks. They must agree, and the ruler must be as long
    as the depth says, which tells the distances of marks apart even where the image's end is dark. Pixels are taken as
    square unless a ruler across says otherwise. A depth that is wrong by the very factor between two distances of marks
    (half of the true one) is seen through only where longer marks tell the distance.

    Returns:
        the pixel size, or why there is none; and the ruler, where one was read.
    """
    ruler = read_ruler(grey)
    if isinstance(ruler, NoRuler):
        return NoScale(f"no ruler can be read on the picture ({ruler.reason}); give --mm-per-px"), None
    depth_px = image_depth_px(grey, ruler)
    shown = f"the depth of {depth_mm:g} mm"
    try:
        by_depth = Scale(depth_mm / (depth_px or 1), depth_mm / (depth_px or 1), f"{shown} over {depth_px} px")
    except ScaleError as error:
        return NoScale(f"{shown} does not suit an image of {depth_px} px ({error})"), ruler
    joined = scale_from_evidence((ruler,), by_depth)
    if isinstance(joined, NoScale):
        return joined, ruler
    fit = _best_fit(ruler, by_depth.y_mm_per_px)
    covered_mm = ruler.intervals * fit.pitch_mm
    if not covered_mm <= (1 + MAX_DISAGREEMENT) * depth_mm < covered_mm + 2 * fit.pitch_mm:
        return NoScale(
            f"the ruler on the picture spans {covered_mm:g} mm, which does not suit {shown}; check the depth, or give "
            "--mm-per-px"
        ), ruler
    across = read_ruler(grey, "x")
    if across and _best_fit(across, fit.mm_per_px).disagreement > MAX_DISAGREEMENT:
        return NoScale(
            "the rulers down and across the picture show pixels that are not square; give --mm-per-px X,Y"
        ), ruler
    return replace(
        joined,
        x_mm_per_px=fit.mm_per_px,
        y_mm_per_px=fit.mm_per_px,
        origin=f"{by_depth.origin}, confirmed by {fit.beside(ruler)}, "
        + ("pixels square by the ruler across" if across else "square pixels taken for granted"),
        relative_uncertainty=max(joined.relative_uncertainty, CALIPER_RELATIVE_SD),
    ), ruler
