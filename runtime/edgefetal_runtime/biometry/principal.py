"""The one length by which each structure is known, from its channel of the network's mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.abdomen import ABDOMEN_SHAPE, measure_abdomen
from edgefetal_runtime.biometry.femur import Shaft, find_shaft, measure_femur
from edgefetal_runtime.biometry.head import HEAD_SHAPE, measure_head
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.biometry.quantities import AC, FL, HC
from edgefetal_runtime.infer.bundle import ABDOMEN, FEMUR, HEAD

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import NoScale, Scale

PRINCIPAL: dict[str, Quantity] = {HEAD: HC, ABDOMEN: AC, FEMUR: FL}


def find_structure(
    structure: str,
    mask_logits: npt.NDArray[np.float32],
    box: Letterbox,
    scale: Scale | NoScale,
    field: npt.NDArray[np.bool_] | None = None,
) -> Outline | Shaft | Abstained:
    """Find a structure in its channel of the network's mask.

    Args:
        structure: one of `PRINCIPAL`.
        mask_logits: its channel, shape (h, w), float32.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or why it is unknown.
        field: field of view in the network's grid, shape (h, w), or None for the whole picture.
    """
    if structure == FEMUR:
        return find_shaft(mask_logits, box, scale, field)
    shape = HEAD_SHAPE if structure == HEAD else ABDOMEN_SHAPE
    return outline_round(mask_logits, box, scale, shape, field)


def principal_length(found: Outline | Shaft | Abstained, structure: str) -> Measured | Abstained:
    """Measure HC, AC or FL of a structure that was found; why not, where it was not.

    Args:
        found: as `find_structure` returns it.
        structure: one of `PRINCIPAL`.
    """
    if isinstance(found, Shaft):
        return measure_femur(found)[FL]
    if isinstance(found, Outline):
        return (measure_head(found) if structure == HEAD else measure_abdomen(found))[PRINCIPAL[structure]]
    return found
