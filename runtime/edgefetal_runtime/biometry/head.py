"""The head's outline in one frame, and its circumference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.ellipse import Ellipse, contour_points, largest_region, robust_ellipse_from_points
from edgefetal_runtime.biometry.measurement import Abstained, Measured

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import Scale

# Smaller than this share of the network input, an outline is a speck: HC18's smallest head covers 3 %.
MIN_AREA_FRACTION = 0.005
# Share of the ellipse's directions from its centre in which the outline was seen.
MIN_COVERAGE = 0.6
_DIRECTIONS = 72
_CONTOUR_POINTS = 128
_SUBPIXEL_BITS = 4
_FAR = 1 << 20
# Root mean square distance of the outline from its ellipse, over the semi-minor axis.
MAX_ROUGHNESS = 0.06
# Semi-minor over semi-major axis. HC18's annotations span 0.66 to 0.96 (n = 834).
MIN_AXIS_RATIO = 0.6
# HC18 spans 44 to 346 mm. Beyond these bounds the scale is wrong or the outline is no head.
MIN_HC_MM, MAX_HC_MM = 40.0, 400.0

NO_SCALE = "the pixel size is unknown; give --mm-per-px, or a table with --scale-csv, to have millimetres"


@dataclass(frozen=True, eq=False)
class HeadOutline:
    """The skull's outline in a frame.

    Args:
        ellipse: the fitted ellipse, in `unit`s; its origin is that of the frame.
        unit: `mm` where the frame has a scale, else `px` (square pixels assumed).
        contour_px: points on the ellipse in frame pixels, shape (N, 2) as x, y, for drawing.
        coverage: share of the directions from the centre in which the outline was seen, 0 to 1.
        roughness: root mean square distance of the seen outline from the ellipse over the semi-minor axis.
        agreement: soft Dice between the network's probabilities and the filled ellipse, 0 to 1: low where the network
            is unsure, or where what it marks is no ellipse.
    """

    ellipse: Ellipse
    unit: str
    contour_px: npt.NDArray[np.float64]
    coverage: float
    roughness: float
    agreement: float

    def circumference(self) -> Measured | Abstained:
        """Head circumference in mm: the perimeter of the ellipse on the outer edge of the skull (ISUOG 2019)."""
        if self.unit != "mm":
            return Abstained(NO_SCALE)
        hc_mm = self.ellipse.circumference()
        if not MIN_HC_MM <= hc_mm <= MAX_HC_MM:
            return Abstained(
                f"the outline measures {hc_mm:.0f} mm, outside {MIN_HC_MM:.0f} to {MAX_HC_MM:.0f} mm; "
                "check the pixel size"
            )
        return Measured(hc_mm, "mm")

    def cephalic_index(self) -> Measured:
        """Short over long axis, both outer to outer; without a scale it holds for square pixels."""
        return Measured(self.ellipse.semi_minor / self.ellipse.semi_major, "1")


def _coverage(ellipse: Ellipse, points: npt.NDArray[np.float64]) -> float:
    """Share of equal steps of the ellipse's parameter that hold at least one point."""
    u, v = ellipse.normalised(points[:, 0], points[:, 1])
    t = np.arctan2(v, u)
    return float(len(np.unique(np.floor(t / (2 * np.pi) * _DIRECTIONS).astype(int) % _DIRECTIONS))) / _DIRECTIONS


def _agreement(mask_logits: npt.NDArray[np.float32], contour: npt.NDArray[np.float64], box: Letterbox) -> float:
    """Soft Dice between probabilities, shape (h, w), and a closed contour filled, both within the picture."""
    filled = np.zeros(mask_logits.shape, np.uint8)
    # An ellipse fitted to a bar may reach beyond what OpenCV can draw; far outside the picture, where does not matter.
    corners = np.clip(np.round(contour * 2**_SUBPIXEL_BITS), -_FAR, _FAR).astype(np.int32)
    cv2.fillPoly(filled, [corners], (1,), cv2.LINE_8, _SUBPIXEL_BITS)
    rows = slice(box.top_px, box.top_px + box.content_height_px)
    columns = slice(box.left_px, box.left_px + box.content_width_px)
    inside = filled[rows, columns]
    # Beyond 30 the exponential only overflows; the probability is 0 or 1 all the same.
    probability = 1 / (1 + np.exp(-np.clip(mask_logits[rows, columns], -30, 30)))
    return float(2 * (probability * inside).sum() / (probability.sum() + inside.sum()))


def outline_head(mask_logits: npt.NDArray[np.float32], box: Letterbox, scale: Scale | None) -> HeadOutline | Abstained:
    """Find the skull's outline in the network's head mask.

    Points on the edge of the picture are left out, so a head that the picture cuts is fitted to its visible edge, and
    is refused when too little of it is visible. With a scale the fit is done in mm, so unequal pixels do no harm.

    Args:
        mask_logits: the head channel of the network's `mask` output, shape (h, w), float32.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or None.
    """
    if not np.isfinite(mask_logits).all():
        return Abstained("the network's answer is not finite; verify the bundle")
    region = largest_region(mask_logits)
    if region.sum() < MIN_AREA_FRACTION * region.size:
        return Abstained("no head is outlined")
    points = contour_points(mask_logits, region)
    right, bottom = box.left_px + box.content_width_px - 1, box.top_px + box.content_height_px - 1
    inner = (
        (points[:, 0] > box.left_px + 1)
        & (points[:, 0] < right - 1)
        & (points[:, 1] > box.top_px + 1)
        & (points[:, 1] < bottom - 1)
    )
    unit_per_px = (scale.x_mm_per_px, scale.y_mm_per_px) if scale else (1.0, 1.0)
    seen = box.to_frame(points[inner]) * unit_per_px
    fit = robust_ellipse_from_points(seen)
    if fit is None:
        return Abstained("the outline is no ellipse")
    ellipse, kept = fit
    distance = ellipse.signed_distance(seen)
    contour_px = ellipse.points(_CONTOUR_POINTS) / unit_per_px
    outline = HeadOutline(
        ellipse=ellipse,
        unit="mm" if scale else "px",
        contour_px=contour_px,
        coverage=_coverage(ellipse, seen[kept]),
        roughness=float(np.sqrt(np.mean(distance**2))) / ellipse.semi_minor,
        agreement=_agreement(mask_logits, box.to_network(contour_px), box),
    )
    return _plausible(outline)


def _plausible(outline: HeadOutline) -> HeadOutline | Abstained:
    """Pass on the outline, or say why it cannot be that of a head."""
    if outline.coverage < MIN_COVERAGE:
        return Abstained(f"only {outline.coverage:.0%} of the head's outline is in the picture; show the whole head")
    if outline.roughness > MAX_ROUGHNESS:
        return Abstained(f"the outline strays {outline.roughness:.0%} from an ellipse; find a clearer plane")
    ratio = outline.ellipse.semi_minor / outline.ellipse.semi_major
    if ratio < MIN_AXIS_RATIO:
        return Abstained(f"the outline is too flat for a head (axis ratio {ratio:.2f}); find a clearer plane")
    return outline
