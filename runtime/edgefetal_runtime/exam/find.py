"""What the network's answer for one frame says of each structure: its outline or shaft, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.biometry.principal import find_structure
from edgefetal_runtime.infer.bundle import HEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.biometry.femur import Shaft
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.bundle import Manifest
    from edgefetal_runtime.infer.network import NetworkOutput
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import NoScale, Scale

    Found = Outline | Shaft | Abstained


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found in one frame.

    Args:
        frame: the frame.
        found: each structure of the bundle, or why it was not found.
        quality: how good the frame is to measure an abdomen on, 0 to 1; None where the network does not say.
        skill: of the hand, 0 to 1, likewise.
    """

    frame: Frame
    found: Mapping[str, Found]
    quality: float | None = None
    skill: float | None = None


def plane_probability(output: NetworkOutput, structure: str) -> float:
    """Return the probability of a structure's plane: 1 where there is no plane head, 0 where it does not know it."""
    return output.plane_probability.get(structure, 0.0) if output.plane_probability else 1.0


def find(
    manifest: Manifest,
    structure: str,
    image: npt.NDArray[np.float32],
    output: NetworkOutput,
    box: Letterbox,
    scale: Scale | NoScale,
) -> Found:
    """Find a structure in the network's answer, if the network takes the frame for its plane.

    Coverage and agreement are asked of heads alone, because their thresholds were fitted on heads.

    Args:
        manifest: the bundle's manifest.
        structure: `head`, `abdomen` or `femur`.
        image: the prepared frame, shape (1, 1, h, w).
        output: the network's answer for it.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or why it is unknown.
    """
    if structure not in manifest.heads.mask:
        return Abstained(f"the bundle outlines no {structure}; use one that does")
    probability = plane_probability(output, structure)
    # Written so that a probability that is no number is refused too.
    if not probability >= manifest.thresholds.least_probability(structure):
        return Abstained(
            f"not taken for a plane of the {structure} (probability {probability:.2f}); find the {structure}"
        )
    field = fan_field(image[0, 0], manifest.preprocess, box)
    found = find_structure(structure, output.mask_logits[manifest.heads.mask.index(structure)], box, scale, field)
    return _sure(found, manifest) if structure == HEAD and isinstance(found, Outline) else found


def _sure(outline: Outline, manifest: Manifest) -> Outline | Abstained:
    """Refuse a head's outline that is open, or less sure than the bundle's thresholds ask."""
    thresholds = manifest.thresholds
    if outline.coverage < thresholds.coverage:
        return Abstained(
            f"the outline is open: only {outline.coverage:.0%} of it is in the picture, and the bundle needs "
            f"{thresholds.coverage:.0%}; show the whole head"
        )
    if outline.agreement < thresholds.agreement:
        return Abstained(
            f"the outline is not sure enough (agreement {outline.agreement:.2f}, {thresholds.agreement:.2f} is "
            "needed); find a clearer plane"
        )
    return outline


def find_all(
    manifest: Manifest,
    frame: Frame,
    image: npt.NDArray[np.float32],
    output: NetworkOutput,
    box: Letterbox,
) -> Finding:
    """Find every structure of the bundle in one frame."""
    found = {s: find(manifest, s, image, output, box, frame.scale) for s in manifest.heads.mask}
    return Finding(frame, found, output.quality, output.skill)
