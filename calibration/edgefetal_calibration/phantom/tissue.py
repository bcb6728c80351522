"""Tissues of the phantom: what each does to an ultrasound pulse.

Attenuation and impedance are the typical figures of the textbooks on diagnostic ultrasound (water 1.48 MRayl, fat 1.38,
blood 1.66, liver 1.65, muscle 1.70; liver 0.5 dB/(cm MHz), fat 0.6, muscle 1.1, blood 0.2), with fetal tissue, which
holds more water, below the adult's. Bone is an exception: adult cortical bone has 7.8 MRayl and some 20 dB/(cm MHz),
yet scanners see the brain through a fetal skull, so half-mineralised bone is put well below either. Echo
level, density and lumps have no textbook figure that carries over from scanner to scanner; they were set by eye and by
grey level on HC18 and pretus.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class Tissue(IntEnum):
    """Label of a point of the phantom; arrays of labels are uint8."""

    OUTSIDE = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    UTERUS = 4
    PLACENTA = 5
    FLUID = 6
    CORD = 7
    FETAL_SKIN = 8
    FETAL_SOFT = 9
    BONE = 10
    BRAIN = 11
    MIDLINE = 12
    CEREBROSPINAL_FLUID = 13
    THALAMUS = 14
    CEREBELLUM = 15
    CHOROID = 16
    LIVER = 17
    STOMACH = 18
    VEIN = 19
    LUNG = 20
    HEART = 21
    BLOOD = 22
    KIDNEY = 23
    GAS = 24
    SHAFT = 25


@dataclass(frozen=True)
class Acoustics:
    """What a tissue does to a pulse.

    Args:
        echo_db: backscatter, relative to liver; in dB of amplitude, 20 log10.
        per_cell: scatterers in a resolution cell; from about 10 on speckle is fully developed.
        lumps_db: standard deviation of the echo level over some millimetres.
        attenuation_db: one way, in dB/(cm MHz).
        impedance_mrayl: acoustic impedance, whose steps are mirrors.
        shadows: what lies behind it is dark.
        leaves: share of a mirror's echo that comes back from its far side.
        layers_db: standard deviation of the echo level between sheets across the tissue's own z axis.
    """

    echo_db: float
    per_cell: float
    lumps_db: float
    attenuation_db: float
    impedance_mrayl: float
    shadows: bool = False
    layers_db: float = 0.0
    leaves: float = 1.0


_DENSE: Final = 30.0
_NO_ECHO_DB: Final = -80.0

ACOUSTICS: Final[dict[Tissue, Acoustics]] = {
    # Air: nothing scatters in it and nothing returns from behind it.
    Tissue.OUTSIDE: Acoustics(_NO_ECHO_DB, _DENSE, 0.0, 40.0, 0.2, shadows=True, leaves=0.3),
    Tissue.SKIN: Acoustics(5.0, _DENSE, 2.0, 0.8, 1.70),
    Tissue.FAT: Acoustics(-7.0, 12.0, 3.0, 0.6, 1.40, layers_db=6.0),
    Tissue.MUSCLE: Acoustics(-6.0, 15.0, 3.0, 0.6, 1.70, layers_db=7.0),
    Tissue.UTERUS: Acoustics(-3.0, _DENSE, 3.0, 0.5, 1.66, layers_db=3.0),
    Tissue.PLACENTA: Acoustics(2.0, _DENSE, 3.0, 0.5, 1.64),
    Tissue.FLUID: Acoustics(-24.0, 3.0, 3.0, 0.005, 1.50),
    Tissue.CORD: Acoustics(-2.0, _DENSE, 2.0, 0.3, 1.60),
    Tissue.FETAL_SKIN: Acoustics(5.0, _DENSE, 1.5, 0.5, 1.66),
    Tissue.FETAL_SOFT: Acoustics(-3.0, 15.0, 4.0, 0.5, 1.62),
    Tissue.BONE: Acoustics(8.0, _DENSE, 2.0, 5.5, 4.50, shadows=True, leaves=0.3),
    Tissue.BRAIN: Acoustics(-11.0, 15.0, 2.5, 0.3, 1.56),
    Tissue.MIDLINE: Acoustics(5.0, 12.0, 3.0, 0.4, 1.70),
    Tissue.CEREBROSPINAL_FLUID: Acoustics(-30.0, 3.0, 3.0, 0.005, 1.51),
    Tissue.THALAMUS: Acoustics(-16.0, _DENSE, 1.5, 0.3, 1.55),
    Tissue.CEREBELLUM: Acoustics(-10.0, _DENSE, 1.5, 0.3, 1.58),
    Tissue.CHOROID: Acoustics(3.0, _DENSE, 2.0, 0.3, 1.60),
    Tissue.LIVER: Acoustics(0.0, _DENSE, 2.0, 0.4, 1.63),
    Tissue.STOMACH: Acoustics(-29.0, 3.0, 3.0, 0.01, 1.50),
    Tissue.VEIN: Acoustics(-27.0, 8.0, 2.0, 0.1, 1.58),
    Tissue.LUNG: Acoustics(2.0, _DENSE, 1.5, 0.5, 1.58),
    Tissue.HEART: Acoustics(-4.0, 15.0, 2.5, 0.5, 1.64),
    Tissue.BLOOD: Acoustics(-30.0, 8.0, 2.0, 0.15, 1.60),
    Tissue.KIDNEY: Acoustics(-5.0, _DENSE, 2.0, 0.5, 1.61),
    Tissue.GAS: Acoustics(8.0, _DENSE, 3.0, 20.0, 0.2, shadows=True, leaves=0.3),
    # The shaft of a long bone, in which the pulse rattles: bright throughout and without a far side.
    Tissue.SHAFT: Acoustics(25.0, _DENSE, 1.0, 5.5, 4.50, shadows=True, leaves=0.02),
}


@lru_cache
def acoustic_column(field: str) -> npt.NDArray[np.float32]:
    """Return one field of `Acoustics` for every label, shape (labels,), float32, to be indexed by an array of labels.

    The array is shared: it must not be written to.
    """
    column = np.array([getattr(ACOUSTICS[tissue], field) for tissue in Tissue], np.float32)
    column.flags.writeable = False
    return column
