"""The outline of a round structure, head or abdomen, in one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.ellipse import SHAPE_TOLERANCE, Ellipse, contour_points, robust_ellipse_from_points
from edgefetal_runtime.biometry.field import inner_field, picture_field, points_in_field
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.region import only_region
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import NoScale

# Share of the ellipse's directions from its centre in which the outline was seen. On HC18's masks, roughened as a
# network does and cut by a simulated fan, the median error is 0.9 % with a fifth of the head hidden and 2.6 % where
# this much is just seen; with 0.45 it passes 3 %. A bundle asks for more where its network outlines cut heads badly.
MIN_COVERAGE = 0.6
# An outline seen to this share is whole; 95 % of HC18's validation heads have 0.94 or more. Intervals are fitted on
# whole heads, and do not hold for others.
WHOLE_COVERAGE = 0.9
_DIRECTIONS = 72
_CONTOUR_POINTS = 128
_SUBPIXEL_BITS = 4
_FAR = 1 << 20
# Root mean square distance of the outline from its ellipse, over the semi-minor axis; at most 4.3 % on the validation
# heads of HC18.
MAX_ROUGHNESS = 0.05
# Perimeter through the best half of the outline against that through all of it. All but one of those heads stay below
# 2.3 %; an arc of a fifth of the outline that bulges by a fifth makes about 3 %.
MAX_DISAGREEMENT = 0.03


@dataclass(frozen=True)
class RoundStructure:
    """What makes an outline that of a structure.

    Args:
        name: its name in the output contract.
        min_axis_ratio: least semi-minor over semi-major axis.
        max_axis_ratio: largest; a rounder outline is another structure's.
    """

    name: str
    min_axis_ratio: float
    max_axis_ratio: float = 1.0


@dataclass(frozen=True, eq=False)
class Outline:
    """The outline of a round structure in a frame.

    Args:
        ellipse: the fitted ellipse, in mm where `scale` is one, else in px (square pixels assumed); its origin is that
            of the frame.
        scale: pixel size of the frame, or why it is unknown.
        contour_px: points on the ellipse in frame pixels, shape (N, 2) as x, y, for drawing.
        coverage: share of the directions from the centre in which the outline was seen, 0 to 1.
        roughness: root mean square distance of the seen outline from the ellipse over the semi-minor axis.
        agreement: soft Dice between the network's probabilities and the filled ellipse, 0 to 1: low where the network
            is unsure, or where what it marks is no ellipse.
        disagreement: relative difference of the perimeter if only the half of the outline that agrees best counted.
    """

    ellipse: Ellipse
    scale: Scale | NoScale
    contour_px: npt.NDArray[np.float64]
    coverage: float
    roughness: float
    agreement: float
    disagreement: float

    @property
    def whole(self) -> bool:
        """Whether all of the outline was seen, or nearly so."""
        return self.coverage >= WHOLE_COVERAGE

    @property
    def extent(self) -> float:
        """Size of the structure: the perimeter of its ellipse, in mm where `scale` is one, else in px."""
        return self.ellipse.circumference()


def _coverage(ellipse: Ellipse, points: npt.NDArray[np.float64]) -> float:
    """Share of equal steps of the ellipse's parameter that hold at least one point."""
    u, v = ellipse.normalised(points[:, 0], points[:, 1])
    sector = np.floor(np.arctan2(v, u) * (_DIRECTIONS / (2 * np.pi))).astype(np.intp) % _DIRECTIONS
    return np.count_nonzero(np.bincount(sector)) / _DIRECTIONS


def _agreement(
    mask_logits: npt.NDArray[np.float32], contour: npt.NDArray[np.float64], field: npt.NDArray[np.bool_]
) -> float:
    """Soft Dice between probabilities, shape (h, w), and a closed contour filled, both within the field of view."""
    filled = np.zeros(mask_logits.shape, np.uint8)
    # An ellipse fitted to a bar may reach beyond what OpenCV can draw; far outside the picture, where does not matter.
    corners = np.clip(np.round(contour * 2**_SUBPIXEL_BITS), -_FAR, _FAR).astype(np.int32)
    cv2.fillPoly(filled, [corners], (1,), cv2.LINE_8, _SUBPIXEL_BITS)
    filled &= field.view(np.uint8)
    # Beyond 30 the exponential only overflows; the probability is 0 or 1 all the same.
    probability = 1 / (1 + cv2.exp(-np.clip(mask_logits, -30, 30)))
    # Sums of products as scalar products: one pass over the map each.
    both = np.vdot(probability, filled.astype(probability.dtype))
    return float(2 * both / (np.vdot(probability, field.astype(probability.dtype)) + cv2.countNonZero(filled)))


def outline_round(
    mask_logits: npt.NDArray[np.float32],
    box: Letterbox,
    scale: Scale | NoScale,
    structure: RoundStructure,
    field: npt.NDArray[np.bool_] | None = None,
) -> Outline | Abstained:
    """Find the outline of a round structure in its channel of the network's mask.

    Points on the edge of the field of view are left out, so a structure that the fan cuts is fitted to its visible
    edge, and is refused when too little of it is visible. With a scale the fit is done in mm, so unequal pixels do no
    harm.

    Args:
        mask_logits: the structure's channel of the network's `mask` output, shape (h, w), float32.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or why it is unknown.
        structure: what it should be.
        field: field of view in the network's grid, shape (h, w), or None for the whole picture.
    """
    region = only_region(mask_logits, structure.name)
    if isinstance(region, Abstained):
        return region
    field = picture_field(box, (mask_logits.shape[0], mask_logits.shape[1])) if field is None else field
    points = contour_points(mask_logits, region)
    points = points[points_in_field(points, inner_field(field))]
    unit_per_px = (scale.x_mm_per_px, scale.y_mm_per_px) if isinstance(scale, Scale) else (1.0, 1.0)
    seen = box.to_frame(points) * unit_per_px
    fit = robust_ellipse_from_points(seen)
    if fit is None:
        return Abstained(f"the outline of the {structure.name} is no ellipse; find a clearer plane")
    ellipse = fit.ellipse
    distance = ellipse.signed_distance(seen)
    contour_px = ellipse.points(_CONTOUR_POINTS) / unit_per_px
    outline = Outline(
        ellipse=ellipse,
        scale=scale,
        contour_px=contour_px,
        coverage=_coverage(ellipse, seen[np.abs(distance) <= SHAPE_TOLERANCE * ellipse.semi_major]),
        roughness=float(np.sqrt(np.mean(distance**2))) / ellipse.semi_minor,
        agreement=_agreement(mask_logits, box.to_network(contour_px), field),
        disagreement=fit.disagreement(),
    )
    return _plausible(outline, structure)


def _plausible(outline: Outline, structure: RoundStructure) -> Outline | Abstained:
    """Pass on the outline, or say why it cannot be that of the structure."""
    name = structure.name
    # Before coverage, which counts only what is near the ellipse: an outline all of lobes is not an open one.
    if outline.roughness > MAX_ROUGHNESS:
        return Abstained(f"the outline strays {outline.roughness:.0%} from an ellipse; find a clearer plane")
    if outline.coverage < MIN_COVERAGE:
        return Abstained(
            f"the outline is open: only {outline.coverage:.0%} of it is in the picture; show the whole {name}"
        )
    if outline.disagreement > MAX_DISAGREEMENT:
        return Abstained(
            f"one part of the outline contradicts the rest by {outline.disagreement:.0%}; find a clearer plane"
        )
    ratio = outline.ellipse.semi_minor / outline.ellipse.semi_major
    if ratio < structure.min_axis_ratio:
        return Abstained(
            f"the outline is too flat to be that of the {name} (axis ratio {ratio:.2f}, {structure.min_axis_ratio:g} "
            "is the least); find a clearer plane"
        )
    if ratio > structure.max_axis_ratio:
        return Abstained(
            f"the outline is too round to be that of the {name} (axis ratio {ratio:.2f}, {structure.max_axis_ratio:g} "
            f"is the most); find the {name}"
        )
    return outline
